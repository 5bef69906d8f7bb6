//! What the system says about threads: how many this process may use, and how signals stay away from ours.

use std::io;
use std::path::Path;
use std::thread::JoinHandle;

/// CPUs this process may use: its affinity mask and its cgroup quota (v1 and v2), rounded up, at least 1.
pub fn available_threads() -> usize {
    let allowed = affinity().unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    quota().map_or(allowed, |quota| allowed.min(quota)).max(1)
}

/// Starts a thread that blocks all signals, as a pool's workers do: the host's signals stay the host's.
///
/// # Errors
/// The system starts no more threads.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    with_signals_blocked(|| std::thread::Builder::new().name(name.to_owned()).spawn(body))
}

/// CPUs in the affinity mask.
#[cfg(target_os = "linux")]
fn affinity() -> Option<usize> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is writable and its true size is given.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: the set is initialised.
    let count = unsafe { libc::CPU_COUNT(&set) };
    (status == 0 && count > 0).then_some(count as usize)
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Option<usize> {
    None
}

/// The smallest quota of the process's control groups, in CPUs rounded up.
fn quota() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    smallest_quota(&groups, Path::new("/sys/fs/cgroup"), &read)
}

/// Reads the quota of each group named in `/proc/self/cgroup` and of the groups around it.
fn smallest_quota(groups: &str, root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Option<usize> {
    let mut smallest = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        // v1 mounts the controllers under their names; in a container the group's path may not be visible, but its
        // outermost folder is, and it carries the container's own quota.
        let mounts =
            if v2 { vec![root.to_path_buf()] } else { vec![root.join(controllers), root.join("cpu")] };
        for mount in mounts {
            let group = Path::new(group.trim_start_matches('/'));
            for folder in group.ancestors() {
                let folder = mount.join(folder);
                let cpus = if v2 {
                    read(&folder.join("cpu.max")).and_then(|text| parse_max(&text))
                } else {
                    let number =
                        |name| read(&folder.join(name)).and_then(|text| text.trim().parse::<i64>().ok());
                    number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us")).and_then(cpus)
                };
                smallest = smallest.into_iter().chain(cpus).min();
            }
        }
    }
    smallest
}

/// `cpu.max` of cgroup v2: "max 100000" or "150000 100000".
fn parse_max(text: &str) -> Option<usize> {
    let mut words = text.split_whitespace();
    let quota = words.next()?.parse().ok()?; // "max" is no number: no quota
    let period = words.next().map_or(Some(100_000), |word| word.parse().ok())?;
    cpus((quota, period))
}

/// Quota by period, rounded up; a negative quota (v1's -1) is none.
fn cpus((quota, period): (i64, i64)) -> Option<usize> {
    if quota <= 0 || period <= 0 {
        return None;
    }
    usize::try_from((quota - 1) / period + 1).ok()
}

/// Runs `f` while this thread blocks all signals: threads started by it inherit that, so the host's signals are
/// never delivered to ours.
#[cfg(unix)]
pub fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    /// Puts the mask back, also when `f` panics.
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the mask was written by pthread_sigmask.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
        }
    }
    // SAFETY: both sets are writable; sigfillset initialises the first, pthread_sigmask the second.
    let _restore = unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        Restore(before)
    };
    f()
}

/// Runs `f`; there are no signals to block.
#[cfg(not(unix))]
pub fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    f()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn quota_of(groups: &str, files: &[(&str, &str)]) -> Option<usize> {
        let files: HashMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(path), *text)).collect();
        smallest_quota(groups, Path::new("/cg"), &|path| files.get(path).map(|text| (*text).to_owned()))
    }

    #[test]
    fn version_2_quota_is_rounded_up() {
        let files = [("/cg/a/b/cpu.max", "150000 100000\n")];
        assert_eq!(quota_of("0::/a/b\n", &files), Some(2));
        assert_eq!(quota_of("0::/a/b\n", &[("/cg/a/b/cpu.max", "100000 100000\n")]), Some(1));
        assert_eq!(quota_of("0::/a/b\n", &[("/cg/a/b/cpu.max", "1000 100000\n")]), Some(1));
        assert_eq!(quota_of("0::/a/b\n", &[("/cg/a/b/cpu.max", "max 100000\n")]), None);
    }

    #[test]
    fn the_smallest_quota_of_all_groups_around_counts() {
        let files = [
            ("/cg/a/b/cpu.max", "800000 100000"),
            ("/cg/a/cpu.max", "300000 100000"),
            ("/cg/cpu.max", "max 100000"),
        ];
        assert_eq!(quota_of("0::/a/b", &files), Some(3));
    }

    #[test]
    fn a_container_that_sees_only_the_root_group_finds_its_quota() {
        assert_eq!(quota_of("0::/", &[("/cg/cpu.max", "250000 100000")]), Some(3));
        assert_eq!(quota_of("0::/docker/0123", &[("/cg/cpu.max", "250000 100000")]), Some(3));
    }

    #[test]
    fn version_1_quota_is_read_from_the_cpu_controller() {
        let groups = "5:memory:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/x\n";
        let files = [
            ("/cg/cpu,cpuacct/x/cpu.cfs_quota_us", "350000\n"),
            ("/cg/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of(groups, &files), Some(4));
        let files = [("/cg/cpu/cpu.cfs_quota_us", "-1\n"), ("/cg/cpu/cpu.cfs_period_us", "100000\n")];
        assert_eq!(quota_of(groups, &files), None);
    }

    #[test]
    fn garbage_is_no_quota() {
        for text in ["", "x", "0 0", "-5 100000", "100000 0", "9999999999999999999 1"] {
            assert_eq!(parse_max(text), None, "{text:?}");
        }
        assert_eq!(quota_of("nonsense\n::\n", &[]), None);
    }

    #[test]
    fn this_process_may_use_at_least_one_cpu() {
        assert!(available_threads() >= 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_started_with_signals_blocked_block_them_and_the_caller_is_as_before() {
        fn blocked() -> u64 {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("linux");
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
            u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
        }
        let before = blocked();
        let in_thread = with_signals_blocked(|| std::thread::spawn(blocked)).join().expect("no panic");
        assert_eq!(before, blocked());
        assert_eq!(in_thread & 0x7eff, 0x7eff, "signals 1 to 15 but SIGKILL, which nobody blocks");
    }
}
