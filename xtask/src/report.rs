//! Figures out of JSON reports: `bitnet`'s, criterion's and cargo's.

use serde_json::Value;

/// The value at a dotted path such as `kl.mean`; null where there is none.
pub(crate) fn at<'a>(report: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(report, |value, key| &value[key])
}

/// The number at a dotted path.
pub(crate) fn number(report: &Value, path: &str) -> Result<f64, String> {
    at(report, path).as_f64().ok_or_else(|| format!("the report holds no number `{path}`"))
}

/// The text at a dotted path.
pub(crate) fn text<'a>(report: &'a Value, path: &str) -> Result<&'a str, String> {
    at(report, path).as_str().ok_or_else(|| format!("the report holds no text `{path}`"))
}

/// The elements of the list at a dotted path; none where there is no list.
pub(crate) fn list<'a>(report: &'a Value, path: &str) -> &'a [Value] {
    at(report, path).as_array().map_or(&[], Vec::as_slice)
}

/// The median, the upper of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{list, number, text};

    #[test]
    fn figures_are_found_by_their_path() {
        let report = json!({"kl": {"mean": 2, "unit": "nat"}, "tests": [1, 2]});
        assert_eq!(number(&report, "kl.mean"), Ok(2.0));
        assert_eq!(text(&report, "kl.unit"), Ok("nat"));
        assert_eq!(list(&report, "tests").len(), 2);
    }

    #[test]
    fn a_missing_figure_is_named() {
        let report = json!({"kl": 1});
        assert!(number(&report, "kl.mean").is_err_and(|e| e.contains("kl.mean")));
        assert!(text(&report, "kl").is_err() && list(&report, "kl").is_empty());
    }
}
