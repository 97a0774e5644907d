//! The facts about this machine: instruction sets, caches, cores, page sizes.
//!
//! On Linux the facts come from `/sys` and `/proc`. Elsewhere, and for facts that are missing there, only the facts
//! that the standard library knows are filled in.
//!
//! **Invariant:** a file that is absent or malformed makes a fact unknown, never an error.
//!
//! ```
//! let caps = tl_kernels::HardwareCaps::detect();
//! assert!(caps.logical_cores >= 1 && caps.physical_cores.is_none_or(|n| n <= caps.logical_cores));
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::arch::Isa;

/// One cache as a core sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Level of the cache; 1 is next to the core.
    pub level: u8,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    /// Size of the cache.
    pub bytes: u64,
    /// Logical cores that share it.
    pub shared_by: usize,
}

/// Facts about the machine, for reports, for the number of threads and for the key of a cached trial.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HardwareCaps {
    /// Processor family: `x86_64`, `aarch64`, `wasm32`.
    pub arch: &'static str,
    /// The maker's name of the processor.
    pub cpu: Option<String>,
    /// The highest level of the hardware, whatever `TL_ISA` says.
    pub isa: Isa,
    /// Instruction set extensions of this machine that kernels of this crate use or may use.
    pub features: Vec<&'static str>,
    /// Threads that the process may run at once.
    pub logical_cores: usize,
    /// Cores without their second threads.
    pub physical_cores: Option<usize>,
    /// Number of processor packages.
    pub packages: Option<usize>,
    /// Number of memory nodes.
    pub numa_nodes: Option<usize>,
    /// The caches of the first core, the nearest first.
    pub caches: Vec<Cache>,
    /// Size of a page.
    pub page_bytes: Option<u64>,
    /// Size of a page that the kernel may hand out for aligned, advised memory.
    pub huge_page_bytes: Option<u64>,
    /// `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
}

impl HardwareCaps {
    /// Reads the facts about this machine.
    #[must_use]
    pub fn detect() -> HardwareCaps {
        HardwareCaps::from_root(Path::new("/"))
    }

    /// The same with `/sys` and `/proc` under another directory.
    fn from_root(root: &Path) -> HardwareCaps {
        let cpus = root.join("sys/devices/system/cpu");
        let (physical_cores, packages) = topology(&cpus);
        HardwareCaps {
            arch: std::env::consts::ARCH,
            cpu: model_name(&root.join("proc/cpuinfo")),
            isa: Isa::detect(),
            features: features(),
            logical_cores: std::thread::available_parallelism().map_or(1, usize::from),
            physical_cores,
            packages,
            numa_nodes: count(&root.join("sys/devices/system/node"), "node"),
            caches: caches(&cpus.join("cpu0/cache")),
            page_bytes: page_bytes(&root.join("proc/self/auxv")),
            huge_page_bytes: number(&root.join("sys/kernel/mm/transparent_hugepage/hpage_pmd_size")),
            transparent_huge_pages: bracketed(&root.join("sys/kernel/mm/transparent_hugepage/enabled")),
        }
    }

    /// Threads for kernels that wait for memory: one per physical core, as far as the process may use them.
    #[must_use]
    pub fn default_threads(&self) -> usize {
        self.physical_cores.unwrap_or(self.logical_cores).min(self.logical_cores)
    }

    /// The last cache level's size, if it is known.
    #[must_use]
    pub fn last_cache_bytes(&self) -> Option<u64> {
        self.caches.last().map(|cache| cache.bytes)
    }

    /// One line that differs between machines whose kernels may differ in speed.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        let caches: Vec<String> = self.caches.iter().map(|c| format!("L{}:{}", c.level, c.bytes)).collect();
        format!("{} | {cpu} | {} | {} | {}", self.arch, self.isa, self.features.join("+"), caches.join("+"))
    }
}

/// A small text file without the white space around it.
fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Reads a size such as `32K` or `8M`, in bytes.
fn size(path: &Path) -> Option<u64> {
    let text = text(path)?;
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, text.as_bytes()[text.len() - 1]),
        None => (text.as_str(), b'B'),
    };
    let shift = match unit {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        _ => 0,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The word in brackets of `always [madvise] never`.
fn bracketed(path: &Path) -> Option<String> {
    let text = text(path)?;
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Number of entries of `dir` that are named `prefix` and a number.
fn count(dir: &Path, prefix: &str) -> Option<usize> {
    let numbered = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u32>().is_ok());
    let entries = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Some(entries.filter(|name| numbered(name)).count()).filter(|&n| n > 0)
}

/// Number of members of a list like `0-3,8`.
fn list_len(text: &str) -> Option<usize> {
    text.split(',').try_fold(0usize, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// Physical cores and packages.
fn topology(cpus: &Path) -> (Option<usize>, Option<usize>) {
    let (mut cores, mut packages) = (BTreeSet::new(), BTreeSet::new());
    for cpu in 0..count(cpus, "cpu").unwrap_or(0) {
        let dir = cpus.join(format!("cpu{cpu}/topology"));
        if let (Some(package), Some(core)) = (text(&dir.join("physical_package_id")), number(&dir.join("core_id"))) {
            cores.insert((package.clone(), core));
            packages.insert(package);
        }
    }
    let known = |n: usize| Some(n).filter(|&n| n > 0);
    (known(cores.len()), known(packages.len()))
}

fn caches(dir: &Path) -> Vec<Cache> {
    let one = |index: usize| {
        let dir = dir.join(format!("index{index}"));
        let shared = text(&dir.join("shared_cpu_list"));
        Some(Cache {
            level: u8::try_from(number(&dir.join("level"))?).ok()?,
            kind: text(&dir.join("type"))?,
            bytes: size(&dir.join("size"))?,
            shared_by: shared.as_deref().and_then(list_len).unwrap_or(1),
        })
    };
    let mut caches: Vec<Cache> = (0..count(dir, "index").unwrap_or(0)).filter_map(one).collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

fn model_name(path: &Path) -> Option<String> {
    let text = text(path)?;
    let named =
        |line: &&str| line.starts_with("model name") || line.starts_with("Model\t") || line.starts_with("CPU part");
    let (_, name) = text.lines().find(named)?.split_once(':')?;
    // Reports print the name: one short line without control characters.
    Some(name.trim().chars().filter(|c| !c.is_control()).take(80).collect())
}

/// The page size: AT_PAGESZ of the auxiliary vector.
fn page_bytes(path: &Path) -> Option<u64> {
    const AT_PAGESZ: u64 = 6;
    const WORD: usize = size_of::<usize>();
    let bytes = fs::read(path).ok()?;
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..WORD].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let pair = bytes.chunks_exact(2 * WORD).find(|pair| word(&pair[..WORD]) == AT_PAGESZ)?;
    Some(word(&pair[WORD..]))
}

/// The extensions of this machine that kernels of this crate use or may use.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512dq", is_x86_feature_detected!("avx512dq")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vbmi", is_x86_feature_detected!("avx512vbmi")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = [("simd128", cfg!(target_feature = "simd128"))];
    found.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_machine_with_two_threads_per_core_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (cpu, core) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
            write(root, &format!("sys/devices/system/cpu/cpu{cpu}/topology/core_id"), &format!("{core}\n"));
            write(root, &format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"), "0\n");
        }
        write(root, "sys/devices/system/cpu/cpufreq/none", "");
        for (index, level, kind, size, shared) in
            [(0, 1, "Data", "48K", "0-1"), (1, 1, "Instruction", "32K", "0-1"), (3, 3, "Unified", "32M", "0-3,8")]
        {
            let at = |name: &str| format!("sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
            write(root, &at("level"), &level.to_string());
            write(root, &at("type"), kind);
            write(root, &at("size"), size);
            write(root, &at("shared_cpu_list"), shared);
        }
        write(root, "sys/devices/system/cpu/cpu0/cache/index2/level", "damaged");
        write(root, "sys/devices/system/node/node0/x", "");
        write(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        write(root, "sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n");
        write(root, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Some\u{7} Processor\n");
        let auxv: Vec<u8> = [3usize, 64, 6, 4096, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        fs::create_dir_all(root.join("proc/self")).unwrap();
        fs::write(root.join("proc/self/auxv"), auxv).unwrap();

        let caps = HardwareCaps::from_root(root);
        assert_eq!((caps.physical_cores, caps.packages, caps.numa_nodes), (Some(2), Some(1), Some(1)));
        assert_eq!(caps.cpu.as_deref(), Some("Some Processor"));
        assert_eq!(HardwareCaps { logical_cores: 4, ..caps.clone() }.default_threads(), 2);
        assert_eq!(HardwareCaps { logical_cores: 1, ..caps.clone() }.default_threads(), 1);
        assert_eq!(caps.caches.len(), 3, "the damaged one is left out");
        let last = Cache { level: 3, kind: "Unified".to_owned(), bytes: 32 << 20, shared_by: 5 };
        assert_eq!(caps.caches[2], last);
        assert_eq!(caps.last_cache_bytes(), Some(32 << 20));
        assert_eq!((caps.page_bytes, caps.huge_page_bytes), (Some(4096), Some(2 << 20)));
        assert_eq!(caps.transparent_huge_pages.as_deref(), Some("madvise"));
        assert!(caps.fingerprint().contains("Some Processor") && caps.fingerprint().contains("L3:33554432"));
    }

    #[test]
    fn a_machine_that_says_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let caps = HardwareCaps::from_root(dir.path());
        assert_eq!((caps.cpu.clone(), caps.physical_cores, caps.page_bytes), (None, None, None));
        assert!(caps.caches.is_empty() && caps.logical_cores >= 1);
        assert_eq!(caps.isa, Isa::detect());
        assert!(caps.fingerprint().contains("unknown processor"));
    }

    #[test]
    fn lists_and_sizes_are_read_strictly() {
        assert_eq!(list_len("0"), Some(1));
        assert_eq!(list_len("0-3,8"), Some(5));
        assert_eq!(list_len("3-0"), None);
        assert_eq!(list_len(""), None);
        assert_eq!(list_len("0-18446744073709551615"), None);
    }
}
