//! What is retained: of each topic the record of the highest rank (R2).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Rank;
use super::matching::{Step, key_of, step, topic_of};
use crate::ledger::rules::{Rule, Rules};
use crate::message::Message;
use crate::mqtt::TopicFilter;
use crate::route::partition::partition_of;

/// Tombstones are forgotten after so much log time (R6): `delete.retention` of `mqtt.retained`. By then every append
/// that was under way when they landed has been resolved or fenced.
pub const FORGET_CLEARED_MS: i64 = 60 * 60 * 1_000;

/// What is known of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    best: Rank,
    last: Rank,
    message: Option<Message>,
}

impl Entry {
    /// The highest rank that was read.
    pub const fn best(&self) -> Rank {
        self.best
    }

    /// The message of that rank; `None`: the topic is cleared.
    pub const fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// Whether the record of the highest rank is the last one, which compaction keeps.
    pub fn is_settled(&self) -> bool {
        self.last == self.best
    }
}

/// A record of a topic.
#[derive(Clone, Debug)]
pub struct Record<'r> {
    /// Its offset in the topic's partition of `mqtt.retained`.
    pub offset: i64,
    /// When Kafka appended it.
    pub append_ms: i64,
    /// Whose it is.
    pub topic: &'r str,
    /// What it names; `None` for a foreign program's record.
    pub rank: Option<Rank>,
    /// `None`: it clears the topic.
    pub message: Option<Message>,
}

/// What a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its rank.
    pub rank: Rank,
    /// The highest rank now.
    pub best: Rank,
    /// It is the new highest.
    pub raised: bool,
    /// What was there before.
    pub before: Option<Before>,
    /// A foreign program wrote it, and it is now what is retained: to be rewritten with its rank.
    pub is_foreign: bool,
}

/// What a record found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// The highest rank.
    pub rank: Rank,
    /// There was a message.
    pub has_message: bool,
}

/// The ledger of all partitions of `mqtt.retained`.
#[derive(Debug)]
pub struct Store {
    rules: Rules,
    partitions: u32,
    topics: BTreeMap<Box<str>, Entry>,
    /// Topics whose last record names no rank.
    unranked: BTreeSet<Box<str>>,
    /// Topics whose last record is not the highest.
    astray: BTreeSet<Box<str>>,
    /// Cleared topics by when that was.
    cleared: BTreeSet<(i64, Box<str>)>,
    log_now_ms: i64,
}

impl Store {
    /// Of a kafka topic with so many partitions.
    pub fn new(rules: Rules, partitions: u32) -> Self {
        Self {
            rules,
            partitions,
            topics: BTreeMap::new(),
            unranked: BTreeSet::new(),
            astray: BTreeSet::new(),
            cleared: BTreeSet::new(),
            log_now_ms: i64::MIN,
        }
    }

    /// The partition of `mqtt.retained` where a topic belongs.
    pub fn partition_of(&self, topic: &str) -> u32 {
        partition_of(topic.as_bytes(), self.partitions)
    }

    /// Takes a record. Those of a topic come in the order of their offsets.
    pub fn apply(&mut self, record: Record<'_>) -> Applied {
        let Record { offset, append_ms, topic, rank: named, message } = record;
        self.log_now_ms = self.log_now_ms.max(append_ms);
        self.forget_cleared();
        // [MQTT-3.3.1-6, 3.3.1-7]
        let message = message.filter(|message| !message.payload().is_empty());
        let key = key_of(topic);
        let known = self.topics.get(&key);
        let before = known.map(|entry| Before { rank: entry.best, has_message: entry.message.is_some() });
        let best = before.map(|before| before.rank);
        let rank = named.unwrap_or_else(|| Rank::of_foreign(offset, best));
        let raised = best.is_none_or(|best| rank > best) || !self.rules.holds(Rule::R2);
        if raised {
            if message.is_none() {
                self.cleared.insert((append_ms, key.clone()));
            }
            self.topics.insert(key.clone(), Entry { best: rank, last: rank, message });
        } else if let Some(entry) = self.topics.get_mut(&key) {
            entry.last = rank;
        }
        let best = if raised { rank } else { best.unwrap_or(rank) };
        note(&mut self.unranked, &key, named.is_none());
        note(&mut self.astray, &key, rank < best);
        Applied { rank, best, raised, before, is_foreign: named.is_none() }
    }

    fn forget_cleared(&mut self) {
        let forget_ms = if self.rules.holds(Rule::R6) { FORGET_CLEARED_MS } else { 0 };
        while let Some((cleared_ms, key)) = self.cleared.first() {
            if self.log_now_ms.saturating_sub(*cleared_ms) <= forget_ms {
                return;
            }
            let over = self.topics.get(key).is_some_and(|entry| entry.message.is_none() && entry.is_settled());
            if over {
                self.topics.remove(key);
                self.unranked.remove(key);
            }
            self.cleared.pop_first();
        }
    }

    /// What is known of a topic.
    pub fn get(&self, topic: &str) -> Option<&Entry> {
        self.topics.get(&key_of(topic))
    }

    /// The first message behind `after` (all, if empty) whose topic matches, with what to go on from. Looks at no more
    /// topics than the filter's own levels make necessary.
    pub fn next_match(&self, filter: &TopicFilter, after: &Cursor) -> Option<(Cursor, &Entry)> {
        let mut from = match after {
            Cursor::Start => String::new(),
            // The smallest key behind it.
            Cursor::At(key) => format!("{key}\0"),
        };
        loop {
            let (key, entry) =
                self.topics.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded)).next()?;
            match step(filter, key) {
                Step::Match if entry.message.is_some() => return Some((Cursor::At(key.clone()), entry)),
                Step::Match => from = format!("{key}\0"),
                Step::Seek(next) => from = next,
                Step::End => return None,
            }
        }
    }

    /// Topics of a partition of `mqtt.retained` whose last record is a foreign program's: compaction would lose its
    /// rank.
    pub fn unranked(&self, is_kept: impl Fn(u32) -> bool) -> Vec<String> {
        self.those(&self.unranked, is_kept)
    }

    /// Topics of a partition of `mqtt.retained` whose last record is not the one of the highest rank.
    pub fn astray(&self, is_kept: impl Fn(u32) -> bool) -> Vec<String> {
        self.those(&self.astray, is_kept)
    }

    /// Whether there is any.
    pub fn has_unranked(&self) -> bool {
        !self.unranked.is_empty()
    }

    fn those(&self, keys: &BTreeSet<Box<str>>, is_kept: impl Fn(u32) -> bool) -> Vec<String> {
        keys.iter().map(|key| topic_of(key)).filter(|topic| is_kept(self.partition_of(topic))).collect()
    }

    /// Topics that are remembered, cleared ones included.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

/// Where a walk through the topics is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cursor {
    /// Before the first.
    #[default]
    Start,
    /// At this one.
    At(Box<str>),
}

impl Cursor {
    /// Whether the walk has come to a topic, or past it.
    pub fn has_reached(&self, topic: &str) -> bool {
        match self {
            Self::Start => false,
            Self::At(key) => **key >= *key_of(topic),
        }
    }
}

fn note(keys: &mut BTreeSet<Box<str>>, key: &str, is_one: bool) {
    if is_one {
        keys.insert(key.into());
    } else {
        keys.remove(key);
    }
}

#[cfg(test)]
pub(super) mod tests;
