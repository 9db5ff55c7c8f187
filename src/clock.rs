//! The only reader of clocks: everything else is given the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch, for timestamps that leave the process; 0 for a clock before 1970.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
