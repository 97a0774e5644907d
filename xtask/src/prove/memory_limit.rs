//! A limit on the memory of a process that counts its page cache: a control group of Linux.
//!
//! The group lies below that of this process, so every limit above stays in force. It is removed with its value.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The files of a version of control groups.
#[derive(Clone, Copy)]
struct Version {
    /// The folder of its tree below [`ROOT`].
    tree: &'static str,
    /// The name in `/proc/PID/cgroup` of the tree that counts memory.
    controller: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// The limit that keeps the group from the swap space, where the system has one, and whether it counts the memory too.
    swap: (&'static str, bool),
}

const VERSIONS: [Version; 2] = [
    Version {
        tree: "memory",
        controller: "memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        swap: ("memory.memsw.limit_in_bytes", true),
    },
    Version { tree: "", controller: "", limit: "memory.max", peak: "memory.peak", swap: ("memory.swap.max", false) },
];

/// A control group with a limit, for one process and its children.
pub(super) struct MemoryLimit {
    folder: PathBuf,
    version: Version,
}

impl MemoryLimit {
    /// A group with this limit; `None` where the system has no control groups that this user may make.
    pub(super) fn create(bytes: u64) -> Option<MemoryLimit> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        VERSIONS.into_iter().find_map(|version| {
            let above = Path::new(ROOT).join(version.tree).join(group_of(&own, version.controller)?);
            let folder = above.join(format!("prove-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let limit = MemoryLimit { folder, version };
            // A group without the controller of memory lacks these files, and a new one cannot be made there.
            let is_set = |name: &str, bytes: u64| {
                limit.path(name).is_file() && fs::write(limit.path(name), bytes.to_string()).is_ok()
            };
            let (swap, counts_memory) = version.swap;
            let is_bounded = is_set(version.limit, bytes)
                && (!limit.path(swap).exists() || is_set(swap, if counts_memory { bytes } else { 0 }));
            (is_bounded && limit.peak_bytes().is_some()).then_some(limit)
        })
    }

    /// The file that takes the number of a process into the group.
    pub(super) fn members(&self) -> PathBuf {
        self.path("cgroup.procs")
    }

    /// The most memory that the group had, page cache included.
    pub(super) fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.path(self.version.peak)).ok()?.trim().parse().ok()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // A group with living members stays; they hold a limit and nothing else.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The group in the text of `/proc/PID/cgroup` that belongs to this controller, below the root of its tree.
fn group_of<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::group_of;

    #[test]
    fn the_group_of_a_controller_is_found_in_both_versions() {
        let text = "5:cpu,cpuacct:/a\n4:memory:/jobs/one\n3:cpuset:/\n0::/unified/two\n";
        assert_eq!(group_of(text, "memory"), Some("jobs/one"));
        assert_eq!(group_of(text, ""), Some("unified/two"));
        assert_eq!(group_of(text, "cpuacct"), Some("a"));
        assert_eq!(group_of(text, "cpuset"), Some(""));
        assert_eq!(group_of(text, "pids"), None);
    }
}
