//! What this node owes to `mqtt.retained` (R1, R3).
//!
//! ```text
//!              appended                  acknowledged, read back, no higher record before it
//!  Owed ──────────────────▶ In flight ──────────────────────────────────────────────────────▶ complete
//!   ▲ ▲    refused, unknown    │  │
//!   │ └────────────────────────┘  │ read back, a higher record is before it: that one is written again (R3)
//!   └─────────────────────────────┘
//! ```
//! One record of a topic is in flight; of what is owed meanwhile only the newest is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::Rank;
use super::store::{Applied, Entry, Store};
use crate::ledger::rules::{Rule, Rules};
use crate::message::Message;

/// Instead of a tick: nothing is owed.
pub const NOTHING_OWED: u32 = u32::MAX;

/// Something that must be in `mqtt.retained`.
#[derive(Clone, Debug)]
pub struct Obligation {
    /// Of the message.
    pub rank: Rank,
    /// `None`: the topic is cleared.
    pub message: Option<Message>,
    /// Whether the LAST record of the topic must be as high: for what is taken over (R4b), or repaired. Else any record
    /// will do, because who wrote a lower one after it repairs that.
    pub must_be_last: bool,
    /// When the message was appended, for the node's mark.
    pub tick: u32,
}

/// A record to append.
#[derive(Clone, Debug)]
pub struct Write {
    /// Names the append in [`Writer::on_outcome`].
    pub sequence: u64,
    /// Whose record.
    pub topic: Box<str>,
    /// Its rank.
    pub rank: Rank,
    /// `None`: it clears the topic.
    pub message: Option<Message>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the log.
    At(i64),
    /// It is certainly not in the log; to be tried again after [`Writer::rested`].
    Not,
    /// It may be in the log, now or later; to be tried again after [`Writer::rested`].
    Unknown,
    /// It never will be in the log.
    Never,
}

/// The obligations of a node.
#[derive(Debug)]
pub struct Writer {
    rules: Rules,
    topics: BTreeMap<Box<str>, Topic>,
    in_flight: BTreeMap<u64, Box<str>>,
    ready: BTreeSet<Box<str>>,
    resting: BTreeSet<Box<str>>,
    /// Acknowledged and not read back: partition of `mqtt.retained` and offset.
    unread: BTreeMap<(u32, i64), Box<str>>,
    next_sequence: u64,
}

#[derive(Debug, Default)]
struct Topic {
    owed: Option<Obligation>,
    /// Something of ours may land after a higher record: the highest must be written again.
    must_write: bool,
    flight: Option<Flight>,
    /// What is not complete: the highest rank of each tick.
    open: BTreeMap<u32, Rank>,
}

#[derive(Debug)]
struct Flight {
    sequence: u64,
    rank: Rank,
    message: Option<Message>,
    offset: Option<i64>,
    /// Records of this rank that were read since it was sent, each with the highest rank up to it.
    seen: Vec<(i64, Rank)>,
}

impl Writer {
    /// Owes nothing.
    pub const fn new(rules: Rules) -> Self {
        Self {
            rules,
            topics: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            unread: BTreeMap::new(),
            next_sequence: 1,
        }
    }

    /// The oldest tick of what is not complete; [`NOTHING_OWED`] if there is nothing (R4a).
    pub fn oldest_tick(&self) -> u32 {
        if !self.rules.holds(Rule::R4) {
            return NOTHING_OWED;
        }
        self.topics.values().filter_map(|topic| topic.open.keys().next().copied()).min().unwrap_or(NOTHING_OWED)
    }

    /// Whether something of this tick is not complete for a topic.
    pub fn owes(&self, topic: &str, tick: u32) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.open.contains_key(&tick))
    }

    /// Whether a record of the topic is in flight, or about to be.
    pub fn is_writing(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|topic| topic.flight.is_some() || topic.must_write)
    }

    /// Topics with something to do.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether everything is complete.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// A message is in the log (R1), or a duty was taken over.
    pub fn owe(&mut self, store: &Store, topic: &str, obligation: Obligation) {
        let is_new = !self.topics.contains_key(topic);
        if is_new && is_there(store, topic, &obligation) {
            return;
        }
        let state = self.topics.entry(topic.into()).or_default();
        let open = state.open.entry(obligation.tick).or_insert(obligation.rank);
        *open = obligation.rank.max(*open);
        let replaces = state.owed.as_ref().is_none_or(|owed| owed.rank < obligation.rank);
        if replaces && (self.rules.holds(Rule::R1) || state.owed.is_none()) {
            let must_be_last = obligation.must_be_last || state.owed.as_ref().is_some_and(|before| before.must_be_last);
            state.owed = Some(Obligation { must_be_last, ..obligation });
        } else if let Some(owed) = &mut state.owed {
            owed.must_be_last |= obligation.must_be_last;
        }
        if state.flight.is_none() && !self.resting.contains(topic) {
            self.ready.insert(topic.into());
        }
    }

    /// The highest record is to be written again: a foreign program wrote it without a rank, or something older is behind
    /// it whose writer is dead.
    pub fn rewrite(&mut self, store: &Store, topic: &str, tick: u32) {
        let Some(best) = store.get(topic).map(Entry::best) else { return };
        let state = self.topics.entry(topic.into()).or_default();
        let open = state.open.entry(tick).or_insert(best);
        *open = best.max(*open);
        if state.flight.is_none() {
            state.must_write = true;
            if !self.resting.contains(topic) {
                self.ready.insert(topic.into());
            }
        } else if state.owed.is_none() {
            // What is in flight may be less.
            let message = store.get(topic).and_then(Entry::message).cloned();
            state.owed = Some(Obligation { rank: best, message, must_be_last: true, tick });
        }
    }

    /// The next record to append.
    pub fn poll(&mut self, store: &Store) -> Option<Write> {
        while let Some(topic) = self.ready.pop_first() {
            let Some(state) = self.topics.get_mut(&topic) else { continue };
            if state.flight.is_some() {
                continue;
            }
            let known = store.get(&topic);
            let best = known.map(Entry::best);
            let done = state.owed.as_ref().filter(|owed| is_there(store, &topic, owed)).and(best);
            if let Some(best) = done.filter(|_| !state.must_write) {
                self.complete(&topic, best);
                continue;
            }
            // The highest: what is owed, or what is there and must be there again.
            let owed = state.owed.as_ref().filter(|owed| best.is_none_or(|best| owed.rank > best));
            let (rank, message) = match (owed, known) {
                (Some(owed), _) => (owed.rank, owed.message.clone()),
                (None, Some(entry)) => (entry.best(), entry.message().cloned()),
                (None, None) => {
                    self.topics.remove(&topic);
                    continue;
                }
            };
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            state.flight = Some(Flight { sequence, rank, message: message.clone(), offset: None, seen: Vec::new() });
            self.in_flight.insert(sequence, topic.clone());
            return Some(Write { sequence, topic, rank, message });
        }
        None
    }

    /// What became of the append of that name.
    pub fn on_outcome(&mut self, store: &Store, sequence: u64, written: Written) {
        let Some(topic) = self.in_flight.remove(&sequence) else { return };
        let Some(state) = self.topics.get_mut(&topic) else { return };
        let Some(flight) = state.flight.as_mut().filter(|flight| flight.sequence == sequence) else { return };
        match written {
            Written::At(offset) => {
                let winner = flight.seen.iter().find(|(seen, _)| *seen == offset).map(|(_, winner)| *winner);
                flight.offset = Some(offset);
                match winner {
                    Some(winner) => self.read_back(&topic, winner),
                    None => {
                        self.unread.insert((store.partition_of(&topic), offset), topic);
                    }
                }
            }
            Written::Not | Written::Unknown => {
                let Some(Flight { rank, message, .. }) = state.flight.take() else { return };
                // It may land behind a higher record.
                state.must_write |= written == Written::Unknown;
                if state.owed.as_ref().is_none_or(|owed| owed.rank < rank) {
                    let tick = state.open.keys().next().copied().unwrap_or(super::marks::DUTY_TICK);
                    let must_be_last = state.must_write;
                    state.owed = Some(Obligation { rank, message, must_be_last, tick });
                }
                self.resting.insert(topic);
            }
            Written::Never => {
                let rank = flight.rank;
                self.complete(&topic, rank);
            }
        }
    }

    /// Whether something is to be tried again after a while.
    pub fn is_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// What rested is tried again.
    pub fn rested(&mut self) {
        self.ready.append(&mut self.resting);
    }

    /// The record of a topic was read and applied.
    pub fn on_applied(&mut self, partition: u32, topic: &str, offset: i64, applied: &Applied) {
        if self.unread.remove(&(partition, offset)).is_some() {
            self.read_back(topic, applied.best);
            return;
        }
        let flight = self.topics.get_mut(topic).and_then(|state| state.flight.as_mut());
        if let Some(flight) = flight.filter(|flight| flight.offset.is_none() && flight.rank == applied.rank) {
            flight.seen.push((offset, applied.best));
        }
    }

    /// All before `next` was read in a partition of `mqtt.retained`: what was not there was compacted away.
    pub fn on_progress(&mut self, store: &Store, partition: u32, next: i64) {
        while let Some((&(_, offset), _)) = self.unread.range((partition, i64::MIN)..(partition, next)).next() {
            let Some(topic) = self.unread.remove(&(partition, offset)) else { return };
            let entry = store.get(&topic);
            let settled = entry.is_none_or(Entry::is_settled);
            let best = entry.map(Entry::best).unwrap_or_default();
            if settled {
                let rank = self.topics.get(&topic).and_then(|state| state.flight.as_ref()).map(|flight| flight.rank);
                self.complete(&topic, rank.unwrap_or(best).max(best));
            } else {
                self.read_back(&topic, best);
            }
        }
    }

    /// R3. `winner`: the highest rank up to the record that was in flight.
    fn read_back(&mut self, topic: &str, winner: Rank) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        let Some(flight) = state.flight.take() else { return };
        if winner > flight.rank && self.rules.holds(Rule::R3) {
            state.must_write = true;
            self.ready.insert(topic.into());
        } else {
            self.complete(topic, flight.rank);
        }
    }

    /// R1: everything up to `rank` is settled.
    fn complete(&mut self, topic: &str, rank: Rank) {
        let Some(state) = self.topics.get_mut(topic) else { return };
        state.flight = None;
        state.must_write = false;
        state.open.retain(|_, open| *open > rank);
        if state.owed.as_ref().is_some_and(|owed| owed.rank <= rank) {
            state.owed = None;
        }
        if state.owed.is_some() {
            self.ready.insert(topic.into());
        } else {
            self.topics.remove(topic);
        }
    }
}

/// Nothing need be written for it.
fn is_there(store: &Store, topic: &str, obligation: &Obligation) -> bool {
    let at_least = |entry: &Entry| entry.best() >= obligation.rank && (!obligation.must_be_last || entry.is_settled());
    store.get(topic).is_some_and(at_least)
}

#[cfg(test)]
mod tests;
