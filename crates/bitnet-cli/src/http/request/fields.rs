//! The fields of a JSON object, read one by one; a refusal names the field.

use serde_json::{Map, Value};

use crate::http::failure::Failure;

/// The fields of an object. A field that is null counts as absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// The place of the object in the request, such as `messages[3]`; empty for the request itself.
    place: &'a str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Fields<'a> {
        Fields { object, place: "" }
    }

    /// The fields of `value`, which stands at `place`.
    pub(crate) fn at(value: &'a Value, place: &'a str) -> Result<Fields<'a>, Failure> {
        let object =
            value.as_object().ok_or_else(|| Failure::field(place, format!("`{place}` has to be an object")))?;
        Ok(Fields { object, place })
    }

    /// The full name of a field.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.place.is_empty() { field.to_owned() } else { format!("{}.{field}", self.place) }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        field: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let wrong = || {
            let name = self.name(field);
            Failure::field(&*name, format!("`{name}` has to be {kind}"))
        };
        read(value).map(Some).ok_or_else(wrong)
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, Failure> {
        self.read(field, "a text", Value::as_str)
    }

    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, Failure> {
        self.read(field, "true or false", Value::as_bool)
    }

    pub(crate) fn list(&self, field: &str) -> Result<Option<&'a [Value]>, Failure> {
        self.read(field, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, Failure> {
        self.read(field, "an object", Value::as_object)
    }

    /// A whole number in `range`.
    pub(crate) fn count(&self, field: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>, Failure> {
        let kind = match *range.end() {
            usize::MAX => format!("a whole number of at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        let whole = |value: &Value| {
            // Some clients send whole numbers as 128.0.
            let float = value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..9e15).contains(x)).map(|x| x as u64);
            value.as_u64().or(float).and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n))
        };
        self.read(field, &kind, whole)
    }

    /// A finite number in `range`.
    pub(crate) fn number(&self, field: &str, range: std::ops::RangeInclusive<f64>) -> Result<Option<f64>, Failure> {
        let kind = format!("a number from {} to {}", range.start(), range.end());
        self.read(field, &kind, |value| value.as_f64().filter(|x| range.contains(x)))
    }

    /// Any whole number of 64 bits, negative ones included.
    pub(crate) fn bits(&self, field: &str) -> Result<Option<u64>, Failure> {
        let whole = |value: &Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        self.read(field, "a whole number of 64 bits", whole)
    }

    /// One text or a list of at most `most` texts.
    pub(crate) fn texts(&self, field: &str, most: usize) -> Result<Vec<String>, Failure> {
        let kind = format!("a text or a list of at most {most} texts");
        let texts = self.read(field, &kind, |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) if list.len() <= most => {
                list.iter().map(|text| text.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// Refuses a field that this server cannot honour and that would change the meaning of the answer.
    pub(crate) fn refuse(&self, field: &str, remedy: &str) -> Result<(), Failure> {
        match self.get(field) {
            None => Ok(()),
            Some(_) => {
                let name = self.name(field);
                Err(Failure::field(&*name, format!("`{name}` is not supported: {remedy}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Fields;

    #[test]
    fn wrong_types_name_the_field_and_null_is_absent() {
        let value = json!({
            "text": 1, "flag": "yes", "list": {}, "object": [], "count": 1.5, "number": "0.1", "none": null, "texts": [1],
            "whole": 12.0, "big": 1e300, "minus": -1, "many": ["a", "b", "c"],
        });
        let fields = Fields::at(&value, "body").unwrap();
        let messages = [
            fields.text("text").unwrap_err(),
            fields.flag("flag").unwrap_err(),
            fields.list("list").unwrap_err(),
            fields.object("object").unwrap_err(),
            fields.count("count", 0..=9).unwrap_err(),
            fields.count("big", 0..=usize::MAX).unwrap_err(),
            fields.count("minus", 0..=9).unwrap_err(),
            fields.number("number", 0.0..=1.0).unwrap_err(),
            fields.texts("texts", 4).unwrap_err(),
            fields.texts("many", 2).unwrap_err(),
            fields.refuse("many", "leave it out").unwrap_err(),
        ];
        for failure in messages {
            assert!(failure.message.contains("`body."), "{}", failure.message);
        }
        assert_eq!(fields.text("none").unwrap(), None);
        assert_eq!(fields.count("whole", 0..=12).unwrap(), Some(12));
        assert_eq!(fields.bits("minus").unwrap(), Some(u64::MAX));
        assert!(fields.refuse("none", "").is_ok() && fields.count("whole", 0..=11).is_err());
    }
}
