//! What processes cost, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use millrace::clock;

/// `/proc/PID/stat` counts in these; the same on every Linux.
const TICKS_PER_SECOND: u32 = 100;
/// Fields of `/proc/PID/stat` after the command's closing bracket: user time, system time, and both of children.
const UTIME: usize = 11;
const STIME: usize = 12;
const CHILDREN_UTIME: usize = 13;

/// User and system time of a process so far, to 10 ms.
pub fn of_process(pid: u32) -> Duration {
    ticks(&format!("/proc/{pid}/stat"), UTIME, 2)
}

fn ticks(path: &str, first_field: usize, fields_count: usize) -> Duration {
    let stat = fs::read_to_string(path).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields = fields.split_whitespace().skip(first_field).take(fields_count);
    let ticks: u32 = fields.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
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

/// Processor time of everything on the machine so far.
fn of_machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user nice system idle iowait irq softirq; what follows is not ours or counted twice.
    let busy = fields.take(7).enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    let ticks: u64 = busy.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum();
    Duration::from_secs(ticks) / TICKS_PER_SECOND
}

/// Time and processor time since it was started.
pub struct Meter {
    started: Instant,
    kafka_pids: Vec<u32>,
    fine: bool,
    before: Spent,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// On the clock.
    pub wall: Duration,
    /// By this process, ...
    pub own: Duration,
    /// ... of which in the kernel, that is with sockets and memory.
    pub own_kernel: Duration,
    /// By all Kafka nodes.
    pub kafka: Duration,
    /// By programs that this process started and that have ended.
    pub children: Duration,
    /// By everything on the machine.
    pub machine: Duration,
}

impl Spent {
    /// Cores that programs had which are no part of the measurement.
    pub fn cores_of_others(&self) -> f64 {
        let ours = self.own + self.kafka + self.children;
        self.machine.saturating_sub(ours).as_secs_f64() / self.wall.as_secs_f64()
    }
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
        let mut meter = Self { started: clock::now(), kafka_pids, fine, before: Spent::default() };
        meter.before = meter.counts();
        meter
    }

    fn counts(&self) -> Spent {
        let of = if self.fine { of_threads } else { of_process };
        Spent {
            wall: self.started.elapsed(),
            own: of(std::process::id()),
            own_kernel: ticks("/proc/self/stat", STIME, 1),
            kafka: self.kafka_pids.iter().map(|pid| of(*pid)).sum(),
            children: ticks("/proc/self/stat", CHILDREN_UTIME, 2),
            machine: of_machine(),
        }
    }

    /// Since the start.
    pub fn read(&self) -> Spent {
        let (now, before) = (self.counts(), self.before);
        Spent {
            wall: now.wall.saturating_sub(before.wall),
            own: now.own.saturating_sub(before.own),
            own_kernel: now.own_kernel.saturating_sub(before.own_kernel),
            kafka: now.kafka.saturating_sub(before.kafka),
            children: now.children.saturating_sub(before.children),
            machine: now.machine.saturating_sub(before.machine),
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
