//! Memory: the peak of this process, mapped pages included, and what the system has left.

use std::path::Path;

use super::read::read_text;

/// More bytes than the system writes.
const MAX_STATUS_BYTES: u64 = 1 << 20;

/// The largest resident size this process has had, in bytes; `None` where the system does not report it.
///
/// On Linux this is `VmHWM` of `/proc/self/status`, which counts mapped file pages.
///
/// ```
/// if let Some(bytes) = gguf_bitnet::peak_rss_bytes() {
///     assert!(bytes > 100_000);
/// }
/// ```
pub fn peak_rss_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// The resident size of this process, in bytes, mapped file pages included; `None` where the system does not report it.
///
/// ```
/// if let Some(bytes) = gguf_bitnet::rss_bytes() {
///     assert!(bytes > 100_000);
/// }
/// ```
pub fn rss_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// Bytes that the system can give without paging; `None` on a system without `/proc/meminfo`.
///
/// ```
/// if let Some(bytes) = gguf_bitnet::available_bytes() {
///     assert!(bytes > 0);
/// }
/// ```
pub fn available_bytes() -> Option<u64> {
    parse_status(&read_text(Path::new("/proc/meminfo"), MAX_STATUS_BYTES).ok()?, "MemAvailable:")
}

fn status_bytes(field: &str) -> Option<u64> {
    parse_status(&read_text(Path::new("/proc/self/status"), MAX_STATUS_BYTES).ok()?, field)
}

/// The value of a `field:   1234 kB` line, in bytes.
fn parse_status(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_field_in_kib() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(parse_status(status, "VmRSS:"), Some(7 * 1024));
        assert_eq!(parse_status(status, "VmSwap:"), None);
        assert_eq!(parse_status("VmHWM: x kB", "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_the_present() {
        let now = rss_bytes().unwrap();
        assert!(now > 0 && peak_rss_bytes().unwrap() >= now / 2);
    }
}
