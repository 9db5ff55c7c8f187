//! What the kernel says about this process, read from `/proc/self` at each scrape. Absent where there is no `/proc`.

use std::fs;

/// Kernel ticks per second in `/proc/self/stat`: fixed at 100 in Linux's interface to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Memory in use, bytes.
    pub resident_bytes: i64,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_fds: i64,
    /// How many may be open.
    pub max_fds: i64,
    /// Threads.
    pub threads: i64,
}

/// Reads all there is; what cannot be read stays 0.
pub(super) fn read() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Process {
        resident_bytes: status_field(&status, "VmRSS:").saturating_mul(1024),
        threads: status_field(&status, "Threads:"),
        cpu_seconds: cpu_seconds(&stat),
        open_fds: i64::try_from(open_fds).unwrap_or(i64::MAX),
        max_fds: max_fds(&limits),
    }
}

fn status_field(status: &str, name: &str) -> i64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Fields 14 and 15 (`utime`, `stime`), counted after the program's name, which may hold anything up to the last `)`.
fn cpu_seconds(stat: &str) -> f64 {
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}

fn max_fds(limits: &str) -> i64 {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_an_odd_program_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 4 0 100 1000 20";
        assert!((cpu_seconds(stat) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_read_is_zero() {
        assert_eq!(status_field("", "VmRSS:"), 0);
        assert_eq!(status_field("VmRSS:\t  2048 kB\n", "VmRSS:"), 2048);
        assert_eq!(max_fds("Max open files            1024                 4096                 files\n"), 1024);
        assert!(cpu_seconds("") < 1e-9);
    }
}
