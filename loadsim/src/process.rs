//! CPU and memory of a process, from `/proc`.

use std::fs;

use crate::sys;

/// Which process.
#[derive(Clone, Copy, Debug)]
pub enum Process {
    /// This one.
    Own,
    /// Another one, by its id.
    Pid(u32),
}

/// Memory of a process in KiB.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Memory {
    /// Resident set.
    pub rss_kib: u64,
    /// Resident set with shared pages divided among their users; `None` where that may not be read.
    pub pss_kib: Option<u64>,
}

impl Process {
    /// CPU seconds so far, user and system, of all threads; `None` if the process is not there, or no `/proc`.
    pub fn cpu_s(self) -> Option<f64> {
        let ticks = cpu_ticks(&self.read("stat")?)?;
        #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^52")]
        Some(ticks as f64 / sys::clock_ticks_per_second() as f64)
    }

    /// Memory now.
    pub fn memory(self) -> Option<Memory> {
        let rss_kib = field_kib(&self.read("status")?, "VmRSS:")?;
        let pss_kib = self.read("smaps_rollup").and_then(|text| field_kib(&text, "Pss:"));
        Some(Memory { rss_kib, pss_kib })
    }

    fn read(self, file: &str) -> Option<String> {
        match self {
            Self::Own => fs::read_to_string(format!("/proc/self/{file}")).ok(),
            Self::Pid(pid) => fs::read_to_string(format!("/proc/{pid}/{file}")).ok(),
        }
    }
}

/// User and system time, fields 14 and 15; the name in field 2 may hold anything, spaces and parentheses too.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_the_strangest_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 700 34 0 0 20 0 5 0 1000 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(734));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn memory_is_found_by_name() {
        let status = "Name:\tx\nVmHWM:\t 300 kB\nVmRSS:\t     200 kB\n";
        assert_eq!(field_kib(status, "VmRSS:"), Some(200));
        assert_eq!(field_kib(status, "Pss:"), None);
    }
}
