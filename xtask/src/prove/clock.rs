//! Wall time and peak memory of one child process.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// Time between two readings of the high-water mark, which never falls.
const POLL: Duration = Duration::from_millis(20);

/// How a child ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) wall: Duration,
    /// VmHWM, mapped pages included; `None` where `/proc` does not exist.
    pub(super) peak_bytes: Option<u64>,
    /// Bytes that came from the disk, page faults included; `None` where the system does not tell.
    pub(super) read_bytes: Option<u64>,
    pub(super) killed: bool,
}

/// Runs `binary`; with `kill_after` it is killed (SIGKILL) at that moment unless it ended before.
pub(super) fn run(binary: &Path, args: &[&str], kill_after: Option<Duration>) -> Outcome<Ended> {
    run_until(binary, args, &mut |elapsed| kill_after.is_some_and(|limit| elapsed >= limit))
}

/// Runs `binary` and kills it (SIGKILL) once `stop`, called with the time since its start, says so.
pub(super) fn run_until(binary: &Path, args: &[&str], stop: &mut dyn FnMut(Duration) -> bool) -> Outcome<Ended> {
    let start = Instant::now();
    let mut child =
        Command::new(binary).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (mut peak_bytes, mut read_bytes) = (None, None);
    loop {
        peak_bytes = high_water(&child).or(peak_bytes);
        read_bytes = disk_reads(&child).or(read_bytes);
        if let Some(status) = child.try_wait()? {
            return Ok(Ended { status, wall: start.elapsed(), peak_bytes, read_bytes, killed: false });
        }
        if stop(start.elapsed()) {
            child.kill()?;
            let status = child.wait()?;
            return Ok(Ended { status, wall: start.elapsed(), peak_bytes, read_bytes, killed: true });
        }
        std::thread::sleep(POLL);
    }
}

/// VmHWM of a process, mapped pages included.
pub(super) fn high_water(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    parse_high_water(&status)
}

/// Bytes that a process has read from the disk, page faults included.
pub(super) fn disk_reads(child: &Child) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.trim().parse().ok()
}

fn parse_high_water(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::parse_high_water;

    #[test]
    fn reads_the_high_water_mark() {
        assert_eq!(parse_high_water("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(parse_high_water("Name:\tzombie\n"), None);
    }
}
