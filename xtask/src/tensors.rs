//! The tensors of a `golden.safetensors`, as numbers.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::outcome::Outcome;

/// The F32 and integer tensors of one file.
pub(crate) struct Tensors {
    entries: Vec<Tensor>,
}

/// One tensor; integers are widened to F64, which is exact for token and expert ids.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// All elements, in row-major order.
    pub(crate) values: Vec<f64>,
}

impl Tensors {
    /// Reads the whole file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let data = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&data).map_err(|problem| format!("{}: {problem}", path.display()).into())
    }

    fn parse(data: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(data).map_err(|e| e.to_string())?;
        let mut entries = Vec::new();
        for (name, view) in file.iter() {
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                Dtype::I32 => bytes.as_chunks().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
                other => return Err(format!("{name} has the type {other:?}; expected F32, I32 or I64")),
            };
            entries.push(Tensor { name: name.to_owned(), shape: view.shape().to_vec(), values });
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
