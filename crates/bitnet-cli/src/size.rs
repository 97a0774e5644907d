//! Sizes as people write them: `1.5GB`, `512MiB`, `4096`.

/// Parses a number of bytes with an optional unit (decimal `kB MB GB TB`, binary `KiB MiB GiB TiB`; `K M G T` alone are
/// decimal).
///
/// # Errors
/// A sentence that shows an example, when the text is not a size.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write for example 1.5GB, 512MiB or a number of bytes");
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].trim().parse().map_err(|_| wrong())?;
    let unit: u64 = match text[split..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let bytes = number * unit as f64;
    // 2^53: beyond it an f64 no longer holds every whole number, and no machine has that many bytes.
    if (0.0..=9_007_199_254_740_992.0).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Three significant digits with a decimal unit: `9.03 GB`, `54.1 kB`, `512 B`.
pub(crate) fn show(bytes: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("1.5GB"), Ok(1_500_000_000));
        assert_eq!(parse("2 GiB"), Ok(2 << 30));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("10m"), Ok(10_000_000));
        for wrong in ["", "GB", "-1", "1.5 XB", "1e30GB", "nan", "inf"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        assert_eq!(show(512), "512 B");
        assert_eq!(show(54_144), "54.1 kB");
        assert_eq!(show(9_030_000_000), "9.03 GB");
        assert_eq!(show(999_999_999), "1.00 GB");
    }
}
