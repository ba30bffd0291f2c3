//! What the machine has: processors, memory, room on the disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    statvfs::statvfs,
};
use serde::Serialize;

/// The machine that a run is on, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: Option<String>,
    /// Processors that this program may use at once.
    pub(crate) threads: usize,
    /// Memory in bytes: the machine's, or what a container allows.
    pub(crate) memory: Option<u64>,
    /// The part of it that is free or can be freed, in bytes.
    pub(crate) free_memory: Option<u64>,
    /// Operating system and architecture.
    pub(crate) system: String,
}

impl Machine {
    /// Looks at the machine.
    pub(crate) fn look() -> Self {
        let (total, available) = (memory("MemTotal:"), memory("MemAvailable:"));
        let allowed = container_limit();
        let left = allowed.map(|(limit, used)| limit.saturating_sub(used));
        Self {
            processor: processor(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: smaller(total, allowed.map(|(limit, _)| limit)),
            free_memory: smaller(available, left),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The most memory that this program ever held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    // Linux counts kibibytes, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.max_rss()).ok().map(|peak| peak * unit).filter(|peak| *peak > 0)
}

/// The memory that this program holds now, in bytes.
pub(crate) fn resident_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What may still be written where this path is or will be, in bytes.
pub(crate) fn free_disk(path: &Path) -> Option<u64> {
    let whole = std::path::absolute(path).ok()?;
    let there: PathBuf = whole.ancestors().find(|above| above.exists())?.into();
    let disk = statvfs(&there).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ between systems")]
    Some(u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size())))
}

/// A size in the largest unit that leaves a digit before the point.
pub(crate) fn bytes(size: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| size >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", size as f64 / *unit as f64),
        None => format!("{size} bytes"),
    }
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line of `/proc/meminfo`, in bytes.
fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the control group of this program allows and what it uses, in bytes; nothing where it allows everything. Files
/// that are only kept for speed do not count: they make room when need be.
fn container_limit() -> Option<(u64, u64)> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max")?;
    let statistics = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let cached = statistics.lines().find_map(|line| line.strip_prefix("file ")?.trim().parse::<u64>().ok());
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    Some((limit, used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let texts = [0, 1023, 1024, 1_572_864, 5 << 30].map(bytes);
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 MiB", "5.0 GiB"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_machine_has_something() {
        let machine = Machine::look();
        assert!(machine.threads > 0);
        assert!(machine.memory > Some(1 << 20) && machine.free_memory <= machine.memory, "{machine:?}");
        assert!(peak_memory() > Some(1 << 20));
        assert!(free_disk(Path::new("not/there/yet")).is_some());
    }
}
