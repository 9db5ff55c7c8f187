//! What a worker counts and measures, and how the counts of several become one.

use std::collections::BTreeMap;
use std::ops::Range;

use hdrhistogram::Histogram;

use crate::verify::{Owed, Track};

/// More kinds of errors than this are not told apart.
const ERRORS_MAX: usize = 16;

/// Latencies in nanoseconds, to three digits, up to an hour.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the histogram takes")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(256, 3_600_000_000_000, 3).expect("legal bounds"))
    }
}

impl Latency {
    /// Takes one.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds all of `other`, which has the same bounds.
    fn add(&mut self, other: &Self) {
        // Histograms of the same bounds always add up.
        let _ = self.0.add(&other.0);
    }

    /// The figures that are reported.
    pub fn percentiles(&self) -> Percentiles {
        #[expect(clippy::cast_precision_loss, reason = "an hour of nanoseconds is below 2^52")]
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile: f64| micros(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        }
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Percentiles {
    /// Values measured.
    pub count: u64,
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// Messages counted once.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Written to a socket.
    pub sent: u64,
    /// Acknowledged as a success (QoS 1 and 2).
    pub acked: u64,
    /// Acknowledged as a failure (QoS 1 and 2).
    pub rejected: u64,
    /// Arrived at a subscriber for the first time.
    pub delivered: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.rejected += other.rejected;
        self.delivered += other.delivered;
    }
}

/// Clients whose connection ended and who came back.
#[derive(Debug, Default)]
pub struct Returns {
    /// Connections that ended after they were ready.
    pub ended: u64,
    /// Connections that were tried and came to nothing.
    pub failed: u64,
    /// Clients that were ready again with their session.
    pub resumed: u64,
    /// Clients that were ready again without the session they should have had.
    pub sessions_lost: u64,
    /// Messages that were not acknowledged and whose session was lost.
    pub given_up: u64,
    /// From the beginning of a connection until its client is ready, with its session.
    pub resume: Latency,
    /// From the end of a connection until its client is ready again, with or without its session.
    pub away: Latency,
    /// From the end of a connection until its subscriber has everything that was acknowledged before it was ready again.
    pub caught_up: Latency,
    /// Connections of probes to a session that goes on, as `resume`.
    pub probe_resume: Latency,
    /// Connections of probes with a clean start, likewise.
    pub probe_clean: Latency,
    /// When the first connection ended; 0: none did.
    pub first_ended_ns: u64,
    /// When the last client was ready again, ...
    pub last_ready_ns: u64,
    /// ... and had caught up.
    pub last_caught_up_ns: u64,
}

impl Returns {
    fn add(&mut self, other: &Self) {
        self.ended += other.ended;
        self.failed += other.failed;
        self.resumed += other.resumed;
        self.sessions_lost += other.sessions_lost;
        self.given_up += other.given_up;
        self.resume.add(&other.resume);
        self.away.add(&other.away);
        self.caught_up.add(&other.caught_up);
        self.probe_resume.add(&other.probe_resume);
        self.probe_clean.add(&other.probe_clean);
        self.first_ended_ns = match (self.first_ended_ns, other.first_ended_ns) {
            (0, at_ns) | (at_ns, 0) => at_ns,
            (one_ns, other_ns) => one_ns.min(other_ns),
        };
        self.last_ready_ns = self.last_ready_ns.max(other.last_ready_ns);
        self.last_caught_up_ns = self.last_caught_up_ns.max(other.last_caught_up_ns);
    }
}

/// What is counted by the intended time of a message, within the measured window and in all.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages intended within these nanoseconds are measured.
    pub window: Range<u64>,
    /// Of the measured window.
    pub measured: Counts,
    /// Of the whole run.
    pub total: Counts,
    /// Deliveries that what was sent or acknowledged asks for.
    pub owed: u64,
    /// From the intended time to the write.
    pub send_lag: Latency,
    /// From the intended time to PUBACK or PUBREC.
    pub ack: Latency,
    /// From the intended time to the arrival.
    pub end_to_end: Latency,
    /// From the intended time of a connection until its client is ready.
    pub connect: Latency,
    /// Connections that became ready, each counted once.
    pub ready: u64,
    /// Connections that did not.
    pub refused: u64,
    /// Connections that ended after they were ready, for good.
    pub lost: u64,
    /// Those that come back.
    pub returns: Returns,
    /// Why, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// A message was written.
    pub fn on_sent(&mut self, intended_ns: u64, now_ns: u64) {
        self.total.sent += 1;
        if self.window.contains(&intended_ns) {
            self.measured.sent += 1;
            self.send_lag.record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// A message was answered.
    pub fn on_answered(&mut self, intended_ns: u64, now_ns: u64, is_success: bool) {
        let one = Counts { acked: is_success.into(), rejected: (!is_success).into(), ..Counts::default() };
        self.total.add(&one);
        if self.window.contains(&intended_ns) {
            self.measured.add(&one);
            self.ack.record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// A message arrived for the first time.
    pub fn on_delivered(&mut self, intended_ns: u64, now_ns: u64) {
        self.total.delivered += 1;
        if self.window.contains(&intended_ns) {
            self.measured.delivered += 1;
            self.end_to_end.record(now_ns.saturating_sub(intended_ns));
        }
    }

    /// Something went wrong.
    pub fn on_error(&mut self, error: String) {
        let is_new = !self.errors.contains_key(&error);
        let error = if is_new && self.errors.len() >= ERRORS_MAX { "further errors".to_owned() } else { error };
        *self.errors.entry(error).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        self.measured.add(&other.measured);
        self.total.add(&other.total);
        self.owed += other.owed;
        self.send_lag.add(&other.send_lag);
        self.ack.add(&other.ack);
        self.end_to_end.add(&other.end_to_end);
        self.connect.add(&other.connect);
        self.ready += other.ready;
        self.refused += other.refused;
        self.lost += other.lost;
        self.returns.add(&other.returns);
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }
}

/// What a worker hands over when it is done; those of several workers add up.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Counts.
    pub tally: Tally,
    /// What arrived.
    pub tracks: Vec<Track>,
    /// Messages without a stamp of this run.
    pub foreign: u64,
    /// What receivers have a right to.
    pub owed: Vec<Owed>,
}

impl Outcome {
    /// Adds that of another worker.
    pub fn add(&mut self, other: Self) {
        self.tally.add(&other.tally);
        self.tracks.extend(other.tracks);
        self.foreign += other.foreign;
        self.owed.extend(other.owed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_intended_within_the_window_are_measured() {
        let mut tally = Tally { window: 100..200, ..Tally::default() };
        for intended_ns in [99, 100, 199, 200] {
            tally.on_sent(intended_ns, 10_000);
            tally.on_answered(intended_ns, 20_000, intended_ns != 199);
            tally.on_delivered(intended_ns, 30_000);
        }
        assert_eq!((tally.measured.sent, tally.total.sent), (2, 4));
        assert_eq!((tally.measured.acked, tally.measured.rejected), (1, 1));
        assert_eq!(tally.end_to_end.percentiles().count, 2);
        let max = tally.ack.percentiles().max;
        assert!((19.8..20.0).contains(&max), "{max}");
    }

    #[test]
    fn outcomes_of_workers_add_up() {
        let mut sum = Outcome::default();
        for n in 0..3 {
            let mut tally = Tally { window: 0..9, ready: n, ..Tally::default() };
            tally.on_sent(1, 1_000);
            tally.on_error("broken".to_owned());
            sum.add(Outcome { tally, ..Outcome::default() });
        }
        assert_eq!((sum.tally.ready, sum.tally.measured.sent, sum.tally.errors["broken"]), (3, 3, 3));
        assert_eq!(sum.tally.send_lag.percentiles().count, 3);
    }

    #[test]
    fn errors_without_end_take_bounded_memory() {
        let mut tally = Tally::default();
        for n in 0..100 {
            tally.on_error(n.to_string());
        }
        assert_eq!(tally.errors.len(), ERRORS_MAX + 1);
        assert_eq!(tally.errors["further errors"], 100 - ERRORS_MAX as u64);
    }
}
