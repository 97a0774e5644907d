//! Reads the tensors of a `golden.safetensors`: an 8-byte header length, a JSON header, raw little-endian data.

use std::path::Path;

use crate::Outcome;
use crate::json::Json;

/// The F32 and I64 tensors of one file, in header order.
pub(crate) struct Tensors {
    entries: Vec<Tensor>,
}

/// One tensor; integers are widened to F64, which is exact for token and expert ids.
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Row-major.
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Tensors {
    /// Reads the whole file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let data = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&data).map_err(|problem| format!("{}: {problem}", path.display()).into())
    }

    fn parse(data: &[u8]) -> Result<Self, String> {
        let (size, rest) = data.split_first_chunk::<8>().ok_or("shorter than its header length")?;
        let size = usize::try_from(u64::from_le_bytes(*size)).map_err(|_| "header length out of range")?;
        let (header, body) = rest.split_at_checked(size).ok_or("header longer than the file")?;
        let Json::Object(members) = Json::parse(std::str::from_utf8(header).map_err(|e| e.to_string())?)? else {
            return Err("the header is no object".to_owned());
        };
        let mut entries = Vec::new();
        for (name, info) in members.into_iter().filter(|(name, _)| name != "__metadata__") {
            let index = |n: &Json| n.number().map(|n| n as usize);
            let shape: Vec<usize> = info.member("shape").map_or(&[][..], Json::list).iter().filter_map(index).collect();
            let span: Vec<usize> =
                info.member("data_offsets").map_or(&[][..], Json::list).iter().filter_map(index).collect();
            let [from, to] = span[..] else { return Err(format!("{name} has no data_offsets")) };
            let bytes = body.get(from..to).ok_or_else(|| format!("{name} lies outside the file"))?;
            let values = match info.member("dtype").and_then(Json::text) {
                Some("F32") => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Some("I64") => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                Some("I32") => bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
                other => return Err(format!("{name} has the type {other:?}; expected F32, I32 or I64")),
            };
            entries.push(Tensor { name, shape, values });
        }
        Ok(Self { entries })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.entries.iter()
    }

    /// The tensor `name`, or an error that says which are there.
    pub(crate) fn find(&self, name: &str) -> Result<&Tensor, String> {
        self.entries.iter().find(|t| t.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.entries.iter().map(|t| t.name.as_str()).collect();
            format!("no tensor `{name}` among {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tensors;

    #[test]
    fn reads_floats_and_ids() {
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"i":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&1.5f32.to_le_bytes());
        file.extend_from_slice(&(-2f32).to_le_bytes());
        file.extend_from_slice(&7i64.to_le_bytes());
        let tensors = Tensors::parse(&file).expect("valid");
        assert_eq!(tensors.find("a").expect("there").values, [1.5, -2.0]);
        assert_eq!(tensors.find("i").expect("there").values, [7.0]);
        assert!(tensors.find("b").is_err());
        file.truncate(file.len() - 1);
        assert!(Tensors::parse(&file).is_err());
    }
}
