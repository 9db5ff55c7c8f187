//! The only reader of clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch that never go back: the wall clock is read once, monotonic time is added to it.
///
/// So stamps of two processes can be compared, on one host or on hosts whose clocks agree, and a clock that is set
/// during a run harms no latency within the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_ns: u64,
}

impl Clock {
    /// Reads the wall clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads clocks")]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ns: nanos(since_epoch) }
    }

    /// Now.
    pub fn now_ns(&self) -> u64 {
        self.origin_ns.saturating_add(nanos(self.origin.elapsed()))
    }
}

/// A duration as nanoseconds; 584 years are enough.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
