//! The distance between a tail's requests to one node.
//!
//! Handling an answer costs the same however little is in it, and with many publishers there is always a little. Who
//! waits for a moment gets as much with fewer answers. A request that was parked longer than that is answered to somebody
//! who has not heard anything for a while: the next one follows at once.

use std::time::{Duration, Instant};

/// Whoever gets this much is behind, and goes on without a rest.
const LARGE_ANSWER_BYTES: usize = 64 * 1024;

/// When a node may be asked again.
#[derive(Debug, Default)]
pub struct Rest {
    until: Option<Instant>,
    is_waited_for: bool,
}

impl Rest {
    /// The node is asked now.
    pub fn on_asked(&mut self, now: Instant, interval: Duration) {
        self.until = Some(now + interval);
    }

    /// It answered.
    pub fn on_answer(&mut self, bytes: usize) {
        self.until = self.until.filter(|_| bytes < LARGE_ANSWER_BYTES);
    }

    /// Whether the node should not be asked yet, though somebody would.
    pub fn holds_back(&mut self, now: Instant) -> bool {
        self.is_waited_for = self.until.is_some_and(|until| now < until);
        self.is_waited_for
    }

    /// Nobody waits for its end.
    pub fn forget(&mut self) {
        self.is_waited_for = false;
    }

    /// When to ask, if somebody waits for it.
    pub fn wake_at(&self) -> Option<Instant> {
        self.until.filter(|_| self.is_waited_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[test]
    fn a_small_answer_that_came_at_once_is_followed_by_a_rest() {
        let (mut rest, now) = (Rest::default(), clock::now());
        assert!(!rest.holds_back(now), "the first request");
        rest.on_asked(now, INTERVAL);
        rest.on_answer(2000);
        assert_eq!(rest.wake_at(), None, "nobody waits");
        assert!(rest.holds_back(now + INTERVAL / 2));
        assert_eq!(rest.wake_at(), Some(now + INTERVAL));
        assert!(!rest.holds_back(now + INTERVAL));
        assert_eq!(rest.wake_at(), None);
    }

    #[test]
    fn an_answer_that_was_long_awaited_is_followed_by_a_request() {
        let (mut rest, now) = (Rest::default(), clock::now());
        rest.on_asked(now, INTERVAL);
        rest.on_answer(100);
        assert!(!rest.holds_back(now + INTERVAL * 20));
    }

    #[test]
    fn whoever_is_behind_does_not_rest() {
        let (mut rest, now) = (Rest::default(), clock::now());
        rest.on_asked(now, INTERVAL);
        rest.on_answer(LARGE_ANSWER_BYTES);
        assert!(!rest.holds_back(now));
    }

    #[test]
    fn a_rest_that_is_forgotten_wakes_nobody() {
        let (mut rest, now) = (Rest::default(), clock::now());
        rest.on_asked(now, INTERVAL);
        assert!(rest.holds_back(now));
        rest.forget();
        assert_eq!(rest.wake_at(), None);
    }
}
