//! What a new subscription gets of what is retained (R5): what is stored, and what comes late.
//!
//! ```text
//!            all stored topics were looked at      all marks have passed the start
//!  Snapshot ──────────────────────────────────▶ Late ─────────────────────────────▶ over
//! ```
//! A retained record speaks of a message in the log. If that message is at the subscription's start or behind it, it
//! comes as a message; if it is before, the record is sent, even if it was written after the subscription began. What was
//! sent of a topic since the start is newer than anything before the start, so of such a topic nothing more is sent.

use std::collections::BTreeSet;

use super::Rank;
use super::marks::{Marks, Vector};
use super::matching::matches;
use super::store::{Applied, Cursor, Entry, Store};
use crate::ledger::ids::{Incarnation, Origin};
use crate::ledger::rules::{Rule, Rules};
use crate::message::Message;
use crate::mqtt::TopicFilter;

/// Topics of messages since the start that are remembered; beyond that nothing late is sent.
const TOPICS_MAX: usize = 10_000;
/// A window closes after so many ticks of the marks, whatever they say: a node may be long in dying.
const TICKS_MAX: u32 = 24;

/// Of one subscription.
#[derive(Debug)]
pub struct Window {
    rules: Rules,
    filter: TopicFilter,
    starts: Vector,
    cursor: Cursor,
    is_walked: bool,
    /// Partitions of `mqtt.retained` whose marks have not passed the start.
    open: BTreeSet<u32>,
    /// Topics of which a message since the start was sent.
    sent: BTreeSet<Box<str>>,
    ticks: u32,
}

impl Window {
    /// Of a subscription that begins at `starts`; `partitions`: where in `mqtt.retained` its topics may be.
    pub fn new(rules: Rules, filter: TopicFilter, starts: Vector, partitions: impl IntoIterator<Item = u32>) -> Self {
        let open = if rules.holds(Rule::R5) { partitions.into_iter().collect() } else { BTreeSet::new() };
        Self { rules, filter, starts, cursor: Cursor::Start, is_walked: false, open, sent: BTreeSet::new(), ticks: 0 }
    }

    /// The subscription's filter.
    pub const fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// R5b: the next stored message to be sent. [`Window::walked`] says that it was.
    pub fn next<'s>(&mut self, store: &'s Store) -> Option<(Cursor, &'s Entry)> {
        while !self.is_walked {
            let Some((cursor, entry)) = store.next_match(&self.filter, &self.cursor) else {
                self.is_walked = true;
                return None;
            };
            let topic = entry.message().map(Message::topic).unwrap_or_default();
            if self.still_wants(topic, entry.best()) {
                return Some((cursor, entry));
            }
            self.cursor = cursor;
        }
        None
    }

    /// The walk has come so far.
    pub fn walked(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }

    /// A message of the log was sent to the subscriber.
    pub fn on_sent(&mut self, topic: &str, origin: Origin) {
        let since_start = self.starts.get(&origin.place).is_some_and(|start| origin.offset >= *start);
        if since_start && self.sent.len() <= TOPICS_MAX && matches(&self.filter, topic) {
            self.sent.insert(topic.into());
        }
    }

    /// R5c, R5d: whether a retained record that was just applied is to be sent.
    pub fn wants_late(&self, partition: u32, topic: &str, applied: &Applied, has_message: bool) -> bool {
        let was_walked = self.is_walked || self.cursor.has_reached(topic);
        let is_late = applied.raised
            && was_walked
            && self.open.contains(&partition)
            && self.is_before(applied.rank)
            && matches(&self.filter, topic)
            && self.sent.len() <= TOPICS_MAX
            && !self.sent.contains(topic);
        // A clear says nothing to who was sent nothing.
        let was_sent = || applied.before.is_some_and(|before| before.has_message && self.is_before(before.rank));
        is_late && (has_message || was_sent())
    }

    /// Whether what is stored of a topic that was to be sent late is still to be sent.
    pub fn still_wants(&self, topic: &str, rank: Rank) -> bool {
        self.is_before(rank) && !self.sent.contains(topic)
    }

    /// Marks were read in a partition of `mqtt.retained`.
    pub fn on_marks(&mut self, marks: &Marks, own: Incarnation, partition: u32) {
        if self.open.contains(&partition) && marks.have_passed(partition, own, &self.starts) {
            self.open.remove(&partition);
        }
    }

    /// Time passes. True when the window was closed although some mark is missing.
    pub fn on_tick(&mut self) -> bool {
        self.ticks = self.ticks.saturating_add(1);
        let gives_up = self.ticks >= TICKS_MAX && !self.open.is_empty();
        if gives_up {
            self.open.clear();
        }
        gives_up
    }

    /// Nothing more will come of it.
    pub fn is_over(&self) -> bool {
        self.is_walked && self.open.is_empty()
    }

    /// R5b: whether the message comes with the retained record and not by itself.
    fn is_before(&self, rank: Rank) -> bool {
        let Some(source) = rank.source else { return true };
        !self.rules.holds(Rule::R5) || self.starts.get(&source.place).is_none_or(|start| source.offset < *start)
    }
}

#[cfg(test)]
mod tests;
