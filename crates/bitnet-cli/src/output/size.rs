//! Sizes for people.

/// Three significant digits with a decimal unit: `9.03 GB`, `54.1 kB`, `512 B`.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let digits = match value {
        _ if unit == "B" => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// Bits per weight of `params` weights in `bytes` bytes.
pub(crate) fn bits_per_weight(bytes: u64, params: u64) -> f64 {
    bytes as f64 * 8.0 / params.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_shown_with_three_digits() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(54_144), "54.1 kB");
        assert_eq!(size(9_030_000_000), "9.03 GB");
        assert_eq!(size(999_999_999), "1.00 GB");
    }
}
