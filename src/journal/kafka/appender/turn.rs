//! When the next Produce request to one Kafka node goes out.
//!
//! A request costs the same however little is in it, and a quick Kafka would be sent one for every two or three records:
//! the answer to the last is there before more have come. So requests keep a distance from each other, which a node that
//! is asked now and then does not notice.

use std::time::{Duration, Instant};

use crate::journal::kafka::options::KafkaOptions;

/// After a request that could not be sent.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// What decides about one node.
#[derive(Debug, Default)]
pub struct Turn {
    /// Since when some batch has been waiting; `None` while none is.
    pub ready_since: Option<Instant>,
    /// Some batch is large enough to wait for nothing.
    pub has_group: bool,
    /// Requests without an answer.
    pub in_flight: usize,
    /// When the last request went out.
    sent_at: Option<Instant>,
    /// The last one could not be sent: none is before.
    held_until: Option<Instant>,
}

/// The numbers that it is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// See [`KafkaOptions::linger_ms`].
    pub linger: Duration,
    /// See [`KafkaOptions::produce_interval_us`].
    pub interval: Duration,
    /// See [`KafkaOptions::requests_in_flight_max`].
    pub in_flight_max: usize,
}

impl Rules {
    /// As the options have it.
    pub fn of(options: &KafkaOptions) -> Self {
        Self {
            linger: Duration::from_millis(options.linger_ms),
            interval: Duration::from_micros(options.produce_interval_us),
            in_flight_max: options.requests_in_flight_max,
        }
    }
}

impl Turn {
    /// When the next request should go out, which may be long ago; `None` if nothing waits, or if only an answer can make
    /// room for it.
    pub fn due_at(&self, rules: Rules) -> Option<Instant> {
        let since = self.ready_since?;
        if self.in_flight >= rules.in_flight_max {
            return None;
        }
        let held = self.held_until;
        if self.has_group {
            return held.max(Some(since));
        }
        let lingers = if self.in_flight == 0 { since } else { since + rules.linger };
        held.max(self.sent_at.map(|sent| sent + rules.interval)).max(Some(lingers))
    }

    /// A request went out.
    pub fn on_sent(&mut self, now: Instant) {
        self.in_flight += 1;
        self.sent_at = Some(now);
        self.held_until = None;
    }

    /// A request could not be sent.
    pub fn on_failed(&mut self, now: Instant) {
        self.held_until = Some(now + FAILURE_PAUSE);
    }

    /// A request was answered, or is lost.
    pub fn on_answered(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const RULES: Rules =
        Rules { linger: Duration::from_millis(2), interval: Duration::from_micros(1500), in_flight_max: 2 };

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// A node to which a request was sent at the returned time.
    fn sent() -> (Turn, Instant) {
        let start = clock::now();
        let mut turn = Turn { ready_since: Some(start), ..Turn::default() };
        assert_eq!(turn.due_at(RULES), Some(start), "the first waits for nothing");
        turn.on_sent(start);
        turn.ready_since = None;
        (turn, start)
    }

    #[test]
    fn nothing_is_due_where_nothing_waits() {
        let (mut turn, _) = sent();
        assert_eq!(turn.due_at(RULES), None);
        turn.on_answered();
        assert_eq!(turn.due_at(RULES), None);
    }

    #[test]
    fn after_a_pause_a_record_is_sent_at_once() {
        let (mut turn, start) = sent();
        turn.on_answered();
        turn.ready_since = Some(start + us(1500));
        assert_eq!(turn.due_at(RULES), turn.ready_since);
        turn.ready_since = Some(start + us(90_000));
        assert_eq!(turn.due_at(RULES), turn.ready_since);
    }

    #[test]
    fn requests_keep_their_distance_and_no_record_waits_longer_for_it() {
        let (mut turn, start) = sent();
        turn.on_answered();
        for after_us in [1, 400, 1499] {
            turn.ready_since = Some(start + us(after_us));
            assert_eq!(turn.due_at(RULES), Some(start + RULES.interval));
        }
    }

    #[test]
    fn a_group_waits_neither_for_the_distance_nor_for_an_answer() {
        let (mut turn, start) = sent();
        turn.ready_since = Some(start + us(10));
        turn.has_group = true;
        assert_eq!(turn.due_at(RULES), turn.ready_since);
        turn.on_answered();
        assert_eq!(turn.due_at(RULES), turn.ready_since);
    }

    #[test]
    fn without_an_answer_a_record_lingers() {
        let (mut turn, start) = sent();
        turn.ready_since = Some(start + us(100));
        assert_eq!(turn.due_at(RULES), Some(start + us(100) + RULES.linger));
        turn.on_sent(start + us(2100));
        turn.ready_since = Some(start + us(2200));
        for has_group in [false, true] {
            turn.has_group = has_group;
            assert_eq!(turn.due_at(RULES), None, "no more than two under way");
        }
        turn.has_group = false;
        turn.on_answered();
        assert_eq!(turn.due_at(RULES), Some(start + us(2200) + RULES.linger));
        turn.on_answered();
        assert_eq!(turn.due_at(RULES), Some(start + us(2100) + RULES.interval));
    }

    #[test]
    fn what_could_not_be_sent_is_not_tried_without_end() {
        let (mut turn, start) = sent();
        turn.on_answered();
        turn.ready_since = Some(start);
        turn.on_failed(start);
        for has_group in [false, true] {
            turn.has_group = has_group;
            assert_eq!(turn.due_at(RULES), Some(start + FAILURE_PAUSE));
        }
        turn.on_sent(start + FAILURE_PAUSE);
        assert_eq!(turn.due_at(RULES), Some(start));
    }

    #[test]
    fn a_long_distance_is_kept_by_what_lingers_too() {
        let (mut turn, start) = sent();
        turn.ready_since = Some(start);
        let rules = Rules { interval: us(9000), ..RULES };
        assert_eq!(turn.due_at(rules), Some(start + us(9000)));
    }

    #[test]
    fn without_a_distance_an_answer_makes_way() {
        let (mut turn, start) = sent();
        turn.on_answered();
        turn.ready_since = Some(start + us(10));
        assert_eq!(turn.due_at(Rules { interval: Duration::ZERO, ..RULES }), turn.ready_since);
    }
}
