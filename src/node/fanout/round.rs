//! Where a subscription starts: one coalesced question for the ends of its partitions (DESIGN "Where a subscription
//! starts").
//!
//! ```text
//!            asked            answered                 tail passed every start
//! Collecting ──────▶ Asked ─────────────▶ Started ───────────────────────────▶ Passed
//!  (SUBSCRIBEs join)   (matches are held)   (older records are skipped)         (nothing to compare)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::snapshots::Beginning;
use crate::journal::{Offset, Partition, TopicIndex};
use crate::mqtt::PacketId;
use crate::node::connections::ConnectionId;
use crate::session::Delivery;

/// Shared by the subscriptions that started together.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    state: Mutex<State>,
    /// Set when a subscriber that lags has to do with it: it reads again what the tail has passed.
    keeps_starts: AtomicBool,
}

#[derive(Debug)]
enum State {
    Asked,
    Started(BTreeMap<Partition, Offset>),
    Passed,
}

/// What a subscription does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It started before the record.
    Deliver,
    /// The record is older than the subscription.
    Skip,
    /// Not known yet.
    Hold,
}

impl Round {
    fn new(number: u64) -> Self {
        Self { number, state: Mutex::new(State::Asked), keeps_starts: AtomicBool::new(false) }
    }

    /// Of subscriptions that started with an earlier connection.
    pub(super) fn long_passed() -> Self {
        Self { number: 0, state: Mutex::new(State::Passed), keeps_starts: AtomicBool::new(false) }
    }

    /// Of a subscription that started with an earlier connection, whose session's position is before these starts.
    pub(super) fn started_at(starts: BTreeMap<Partition, Offset>) -> Self {
        Self { number: 0, state: Mutex::new(State::Started(starts)), keeps_starts: AtomicBool::new(true) }
    }

    /// Where its subscriptions start in a partition, if that is known.
    pub(super) fn start_in(&self, partition: Partition) -> Option<Offset> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Asked | State::Passed => None,
            State::Started(starts) => starts.get(&partition).copied(),
        }
    }

    pub(super) fn judge(&self, partition: Partition, offset: Offset) -> Verdict {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Asked => Verdict::Hold,
            State::Passed => Verdict::Deliver,
            State::Started(starts) => match starts.get(&partition) {
                Some(start) if offset < *start => Verdict::Skip,
                Some(_) | None => Verdict::Deliver,
            },
        }
    }

    pub(super) fn start(&self, starts: BTreeMap<Partition, Offset>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Started(starts);
    }

    /// Where its subscriptions start in a partition, or earlier than anything the tail has yet to hand out; `None` while
    /// that is not known.
    pub(super) fn in_force_from(&self, partition: Partition) -> Option<Offset> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Asked => None,
            State::Passed => Some(Offset(i64::MIN)),
            State::Started(starts) => Some(starts.get(&partition).copied().unwrap_or(Offset(i64::MIN))),
        }
    }

    /// The kafka topic was created anew: everything in it is younger than these subscriptions.
    pub(super) fn forget_topic(&self, topic: TopicIndex) {
        if let State::Started(starts) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            starts.retain(|partition, _| partition.topic != topic);
        }
    }

    /// The log ends earlier than it did: what comes from there on is younger than these subscriptions.
    pub(super) fn rewind(&self, partition: Partition, end: Offset) {
        if let State::Started(starts) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner)
            && let Some(start) = starts.get_mut(&partition)
        {
            *start = end.min(*start);
        }
    }

    /// From now on the starts are not forgotten.
    pub(super) fn keep_starts(&self) {
        self.keeps_starts.store(true, Ordering::Relaxed);
    }

    /// True once the tail has passed every start: then the starts are forgotten, so that a subscription costs no memory
    /// for them, unless somebody needs them.
    pub(super) fn try_pass(&self, positions: &BTreeMap<Partition, Offset>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = match &*state {
            State::Asked => false,
            State::Passed => true,
            State::Started(starts) => starts
                .iter()
                .all(|(partition, start)| positions.get(partition).is_none_or(|position| position >= start)),
        };
        if passed && !self.keeps_starts.load(Ordering::Relaxed) {
            *state = State::Passed;
        }
        passed
    }
}

/// A match whose subscription has not started yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: ConnectionId,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) delivery: Delivery,
}

/// A round while it is open.
#[derive(Debug)]
pub(super) struct OpenRound {
    pub(super) round: Arc<Round>,
    /// What to ask for.
    pub(super) partitions: BTreeSet<Partition>,
    /// Of these, to be read from the beginning: they are new to us as a whole.
    pub(super) from_log_start: BTreeSet<Partition>,
    /// Kafka topics in which sessions have other partitions than before, and are to write their positions.
    pub(super) changed: BTreeSet<TopicIndex>,
    /// Who gets a SUBACK.
    pub(super) waiting: Vec<(ConnectionId, PacketId)>,
    /// Sessions that go on where they were, as soon as it is known what exists.
    pub(super) resuming: Vec<ConnectionId>,
    /// Who lags and came to a record of a subscription that starts with this round.
    pub(super) unstarted: Vec<ConnectionId>,
    /// What its subscriptions want of what is retained.
    pub(super) beginning: Vec<Beginning>,
    /// Bounded by what the tail hands out during one question.
    pub(super) held: Vec<Held>,
}

impl OpenRound {
    pub(super) fn new(number: u64) -> Self {
        Self {
            round: Arc::new(Round::new(number)),
            partitions: BTreeSet::new(),
            from_log_start: BTreeSet::new(),
            changed: BTreeSet::new(),
            waiting: Vec::new(),
            resuming: Vec::new(),
            unstarted: Vec::new(),
            beginning: Vec::new(),
            held: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.waiting.is_empty() && self.resuming.is_empty() && self.unstarted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition { topic: TopicIndex(0), number: 3 };

    #[test]
    fn a_record_is_held_until_the_start_is_known_then_judged_by_it() {
        let round = Round::new(1);
        assert_eq!(round.judge(P, Offset(7)), Verdict::Hold);
        round.start([(P, Offset(7))].into());
        assert_eq!(round.judge(P, Offset(6)), Verdict::Skip);
        assert_eq!(round.judge(P, Offset(7)), Verdict::Deliver);
    }

    #[test]
    fn a_round_passes_only_when_the_tail_is_past_every_start() {
        let round = Round::new(1);
        let other = Partition { number: 4, ..P };
        round.start([(P, Offset(7)), (other, Offset(1))].into());
        assert!(!round.try_pass(&[(P, Offset(7)), (other, Offset(0))].into()));
        assert_eq!(round.judge(P, Offset(6)), Verdict::Skip);
        assert!(round.try_pass(&[(P, Offset(7)), (other, Offset(1))].into()));
        assert_eq!(round.judge(P, Offset(6)), Verdict::Deliver);
    }

    #[test]
    fn a_round_that_keeps_its_starts_still_skips_what_is_older() {
        let round = Round::new(1);
        round.start([(P, Offset(7))].into());
        round.keep_starts();
        assert!(round.try_pass(&[(P, Offset(9))].into()));
        assert_eq!(round.judge(P, Offset(6)), Verdict::Skip);
        assert_eq!(round.judge(P, Offset(7)), Verdict::Deliver);
    }
}
