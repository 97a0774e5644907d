//! Parses sizes as people write them: `1.5GB`, `512MiB`, `4096`.

/// Parses a number of bytes with an optional unit (decimal `kB MB GB TB`, binary `KiB MiB GiB TiB`; `K M G T` alone are
/// decimal).
///
/// # Errors
/// A sentence that shows an example, when the text is not a size.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write for example 1.5GB, 512MiB or a number of bytes".to_owned();
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

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("1.5GB"), Ok(1_500_000_000));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("10m"), Ok(10_000_000));
        for wrong in ["", "GB", "-1", "1.5 XB", "1e30GB", "nan", "inf"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
