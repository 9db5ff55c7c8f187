//! The only reader of clocks: everything else is given the time.
//!
//! In a simulation both clocks are the runtime's: monotonic time is tokio's, which a paused runtime moves by hand, and the
//! time of day is counted on from a start that [`simulate_wall`] gives.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time of day of a simulation, which belongs to its thread.
#[derive(Clone, Copy, Debug)]
struct Wall {
    started: Instant,
    started_ms: i64,
    /// How far the clock of the node whose task runs is off.
    off_by_ms: i64,
}

thread_local! {
    static WALL: Cell<Option<Wall>> = const { Cell::new(None) };
}

/// Monotonic time, for deadlines and durations: the runtime's, so that it can be simulated.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since the Unix epoch, for timestamps that leave the process; 0 for a clock before 1970.
pub fn wall_ms() -> i64 {
    WALL.get().map_or_else(system_ms, |wall| wall.true_ms().saturating_add(wall.off_by_ms))
}

/// [`wall_ms`] by a clock that is right, whatever a simulation does to the node's own: the clock of another machine.
pub fn true_wall_ms() -> i64 {
    WALL.get().map_or_else(system_ms, Wall::true_ms)
}

/// From now on the time of day of this thread is counted from `started_ms` on by [`now`].
pub fn simulate_wall(started_ms: i64) {
    WALL.set(Some(Wall { started: now(), started_ms, off_by_ms: 0 }));
}

/// How far [`wall_ms`] is off from now on, where it is simulated; returns how far it was.
pub(crate) fn put_wall_off(by_ms: i64) -> i64 {
    let Some(wall) = WALL.get() else { return 0 };
    WALL.set(Some(Wall { off_by_ms: by_ms, ..wall }));
    wall.off_by_ms
}

impl Wall {
    fn true_ms(self) -> i64 {
        let since = now().saturating_duration_since(self.started);
        self.started_ms.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn system_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_clocks_follow_the_simulated_time() {
        simulate_wall(1_000);
        let before = now();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(now() - before, Duration::from_hours(1));
        assert_eq!(wall_ms(), 3_601_000);
        assert_eq!(put_wall_off(-1_000), 0);
        assert_eq!((wall_ms(), true_wall_ms()), (3_600_000, 3_601_000));
        assert_eq!(put_wall_off(0), -1_000);
    }

    #[test]
    fn without_a_simulation_it_is_the_systems_time() {
        assert!(wall_ms() > 1_700_000_000_000);
    }
}
