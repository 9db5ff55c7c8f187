//! Clients that come back: connections made again, sessions that go on, and how long that takes.

use std::cmp::Reverse;
use std::time::Duration;

use mio::Token;

use super::{Deadline, Worker, keep_alive_ns};
use crate::client::{ClientError, Continuity, Role, State};
use crate::clock::nanos;
use crate::conn::{Conn, ConnError};
use crate::inflight::Sent;
use crate::stamp::Stamp;
use crate::tally::Returns;

/// The first pause before a connection is made again; it doubles with each attempt, up to ...
const PAUSE_MIN_NS: u64 = 100_000_000;
/// ... this.
const PAUSE_MAX_NS: u64 = 2_000_000_000;
/// From one connection of a probe to its next.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What was acknowledged, by topic: one more than the largest sequence.
#[derive(Debug)]
pub struct Acked(Vec<u64>);

impl Acked {
    /// Nothing, of so many topics.
    pub fn new(topics: u32) -> Self {
        Self(vec![0; usize::try_from(topics).unwrap_or(0)])
    }

    /// This message was.
    pub fn note(&mut self, sent: Sent) {
        let next = usize::try_from(sent.topic).ok().and_then(|topic| self.0.get_mut(topic));
        if let Some(next) = next {
            *next = (*next).max(sent.sequence + 1);
        }
    }

    fn next(&self, topic: u32) -> u64 {
        usize::try_from(topic).ok().and_then(|topic| self.0.get(topic)).copied().unwrap_or(0)
    }
}

impl Worker {
    /// A connection that was ready before ended, or could not be made again: there will be another.
    pub(super) fn come_back(&mut self, at: usize) {
        let now_ns = self.clock.now_ns();
        let Some(conn) = self.conns.get_mut(at) else { return };
        let returns = &mut self.tally.returns;
        if conn.client.state() == State::Ready {
            returns.ended += 1;
            if returns.first_ended_ns == 0 {
                returns.first_ended_ns = now_ns;
            }
            conn.ended_ns = Some(now_ns);
            conn.attempts = 0;
        } else {
            returns.failed += 1;
            conn.ended_ns = conn.ended_ns.or(Some(now_ns));
        }
        conn.reset();
        conn.attempts += 1;
        conn.turns = conn.turns.wrapping_add(1);
        let due_ns = now_ns + pause_ns(conn.index, conn.attempts);
        self.deadlines.push(Reverse((due_ns, at, Deadline::Open)));
    }

    /// Opens a connection, the first time or again.
    pub(super) fn open(&mut self, at: usize, due_ns: u64) {
        let Some(conn) = self.conns.get_mut(at) else { return };
        conn.intended_ns = due_ns;
        conn.connect_due_ns = due_ns.saturating_add(self.spec.target.connect_timeout_ns);
        let from = self.spec.source_address(conn.index);
        match conn.open(self.spec.broker(conn.turns), from, self.poll.registry(), Token(at)) {
            Ok(()) => self.deadlines.push(Reverse((conn.connect_due_ns, at, Deadline::Connect))),
            Err(error) => self.on_failed(at, &error),
        }
    }

    /// A client became ready, the first time or again.
    pub(super) fn on_ready(&mut self, at: usize, now_ns: u64) -> Result<(), ConnError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        let took_ns = now_ns.saturating_sub(conn.intended_ns);
        conn.attempts = 0;
        if conn.client.keep_alive_s() > 0 {
            conn.ping_due_ns = now_ns.saturating_add(keep_alive_ns(&conn.client));
            self.deadlines.push(Reverse((conn.ping_due_ns, at, Deadline::KeepAlive)));
        }
        let is_first = conn.first_ready_ns.is_none();
        if is_first {
            conn.first_ready_ns = Some(now_ns);
            self.tally.ready += 1;
            self.tally.connect.record(took_ns);
        }
        let continuity = conn.client.continuity();
        self.tally.returns.given_up += conn.client.take_given_up();
        self.tally.returns.sessions_lost += u64::from(continuity == Continuity::Lost);
        if let Role::Probe { lasts } = conn.client.role {
            if !is_first {
                let returns = &mut self.tally.returns;
                match (lasts, continuity) {
                    (true, Continuity::Resumed) => returns.probe_resume.record(took_ns),
                    (true, Continuity::New | Continuity::Lost) => {}
                    (false, Continuity::New | Continuity::Resumed | Continuity::Lost) => {
                        returns.probe_clean.record(took_ns);
                    }
                }
            }
            return self.end_probe(at, now_ns);
        }
        if continuity == Continuity::Resumed {
            let (run, line) = (self.spec.run, conn.client.line());
            if let Role::Publisher(publisher) = &conn.client.role {
                publisher.resend(run, line, &mut self.payload, &mut self.out).map_err(ClientError::from)?;
            }
        }
        if let Some(ended_ns) = conn.ended_ns {
            let returns = &mut self.tally.returns;
            returns.away.record(now_ns.saturating_sub(ended_ns));
            returns.last_ready_ns = now_ns;
            if continuity == Continuity::Resumed {
                returns.resumed += 1;
                returns.resume.record(took_ns);
                self.look_behind(at, now_ns);
            }
        }
        Ok(())
    }

    /// Notes what a subscriber that came back has still to get.
    fn look_behind(&mut self, at: usize, now_ns: u64) {
        let Some(conn) = self.conns.get_mut(at).filter(|conn| matches!(conn.client.role, Role::Subscriber(_))) else {
            return;
        };
        let (run, index) = (self.spec.run, conn.index);
        let topics = self.receivers.topics_of(index).iter();
        let behind = topics.map(|topic| (*topic, self.acked.next(*topic)));
        conn.behind = behind.filter(|(topic, next)| self.verifier.next(index, run, *topic) < *next).collect();
        if conn.behind.is_empty() {
            on_caught_up(conn, &mut self.tally.returns, now_ns);
        }
    }

    /// A probe has done what it is for, until the next time.
    fn end_probe(&mut self, at: usize, now_ns: u64) -> Result<(), ConnError> {
        let Some(conn) = self.conns.get_mut(at) else { return Ok(()) };
        self.out.clear();
        conn.client.disconnect(&mut self.out)?;
        conn.write(&self.out, now_ns)?;
        self.out.clear();
        conn.reset();
        conn.ended_ns = None;
        self.deadlines.push(Reverse((now_ns + nanos(PROBE_EVERY), at, Deadline::Open)));
        Ok(())
    }

    /// Clients that are to come back, or have not caught up.
    pub(super) fn away(&self) -> u64 {
        let is_away = |conn: &&Conn| {
            let is_probe = matches!(conn.client.role, Role::Probe { .. });
            !is_probe
                && conn.first_ready_ns.is_some()
                && (conn.client.state() != State::Ready || !conn.behind.is_empty())
        };
        self.conns.iter().filter(is_away).filter(|conn| !conn.is_closed()).count() as u64
    }
}

/// A message came to a subscriber that has not caught up.
pub(super) fn on_message(conn: &mut Conn, payload: &[u8], returns: &mut Returns, now_ns: u64) {
    let Some(stamp) = Stamp::read(payload) else { return };
    conn.behind.retain(|(topic, next)| *topic != stamp.publisher || stamp.sequence + 1 < *next);
    if conn.behind.is_empty() {
        on_caught_up(conn, returns, now_ns);
    }
}

fn on_caught_up(conn: &Conn, returns: &mut Returns, now_ns: u64) {
    if let Some(ended_ns) = conn.ended_ns {
        returns.caught_up.record(now_ns.saturating_sub(ended_ns));
        returns.last_caught_up_ns = now_ns;
    }
}

/// Half to one and a half times the nominal pause, different for each connection and attempt, the same in every run.
fn pause_ns(index: u32, attempt: u32) -> u64 {
    let nominal_ns = PAUSE_MIN_NS.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(PAUSE_MAX_NS);
    let mixed = (u64::from(index) << 32 | u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    nominal_ns / 2 + (mixed >> 32) * nominal_ns / (1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for attempt in 1..40 {
            let nominal_ns = (PAUSE_MIN_NS << (attempt - 1).min(20)).min(PAUSE_MAX_NS);
            let pauses: Vec<u64> = (0..100).map(|index| pause_ns(index, attempt)).collect();
            assert!(pauses.iter().all(|pause_ns| (nominal_ns / 2..nominal_ns * 3 / 2).contains(pause_ns)));
            assert!(pauses.iter().min() < pauses.iter().max());
        }
    }
}
