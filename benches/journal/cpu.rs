//! What processes cost, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use millrace::clock;

/// `/proc/PID/stat` counts in these; the same on every Linux.
const TICKS_PER_SECOND: u32 = 100;
/// Fields of `/proc/PID/stat` after the command's closing bracket.
const UTIME: usize = 11;
const CHILDREN_UTIME: usize = 13;

/// User and system time of a process so far, to 10 ms.
pub fn of_process(pid: u32) -> Duration {
    ticks(&format!("/proc/{pid}/stat"), UTIME)
}

fn ticks(path: &str, first_field: usize) -> Duration {
    let stat = fs::read_to_string(path).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let two = fields.split_whitespace().skip(first_field).take(2);
    let ticks: u32 = two.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Duration::from_secs(ticks.into()) / TICKS_PER_SECOND
}

/// Time of all threads that the process has now, to the nanosecond: for what costs next to nothing. Where the kernel
/// does not keep it, [`of_process`].
fn of_threads(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    let sum: u64 = nanoseconds.sum();
    if sum > 0 { Duration::from_nanos(sum) } else { of_process(pid) }
}

/// The machine's load average of the last minute.
pub fn load_average() -> String {
    let line = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    line.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Time and processor time since it was started.
pub struct Meter {
    started: Instant,
    kafka_pids: Vec<u32>,
    fine: bool,
    before: (Duration, Duration, Duration),
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On the clock.
    pub wall: Duration,
    /// By this process.
    pub own: Duration,
    /// By all Kafka nodes.
    pub kafka: Duration,
    /// By programs that this process started and that have ended.
    pub children: Duration,
}

impl Meter {
    /// For work that takes seconds.
    pub fn start(kafka_pids: &[u32]) -> Self {
        Self::new(kafka_pids, false)
    }

    /// For idleness: counts to the nanosecond, but only threads that live through it.
    pub fn start_fine(kafka_pids: &[u32]) -> Self {
        Self::new(kafka_pids, true)
    }

    fn new(kafka_pids: &[u32], fine: bool) -> Self {
        let kafka_pids = kafka_pids.to_vec();
        let mut meter = Self { started: clock::now(), kafka_pids, fine, before: Default::default() };
        meter.before = meter.counts();
        meter
    }

    fn counts(&self) -> (Duration, Duration, Duration) {
        let of = if self.fine { of_threads } else { of_process };
        let kafka = self.kafka_pids.iter().map(|pid| of(*pid)).sum();
        (of(std::process::id()), kafka, ticks("/proc/self/stat", CHILDREN_UTIME))
    }

    /// Since the start.
    pub fn read(&self) -> Spent {
        let (own, kafka, children) = self.counts();
        Spent {
            wall: self.started.elapsed(),
            own: own.saturating_sub(self.before.0),
            kafka: kafka.saturating_sub(self.before.1),
            children: children.saturating_sub(self.before.2),
        }
    }
}

/// Microseconds of `spent` for each of `count`.
pub fn micros_each(spent: Duration, count: u64) -> f64 {
    spent.as_secs_f64() * 1e6 / to_f64(count)
}

/// Percent of one core.
pub fn percent(spent: Duration, wall: Duration) -> f64 {
    spent.as_secs_f64() / wall.as_secs_f64() * 100.0
}

/// Counts here are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}
