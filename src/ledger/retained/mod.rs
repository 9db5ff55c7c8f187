//! Retained messages: `mqtt.retained` as a ledger, and who writes what into it (R1–R6).
//!
//! The node that appended a retain-flagged message writes its record ([`writer`]); readers keep the record of the highest
//! [`Rank`] ([`store`]). Marks say up to where a node's records are complete ([`marks`]); a keeper does what a dead node
//! left undone ([`keeper`]); a new subscription gets what is stored and, until all marks have passed its start, what
//! comes late ([`window`]).

pub mod keeper;
pub mod marks;
mod matching;
pub mod record;
pub mod store;
pub mod window;
pub mod writer;

pub use matching::matches;

use super::ids::{Origin, Place};

/// Which of two retained records of a topic is the newer one: the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Counts how often the topic came to live in another partition of messages, whose offsets say nothing of these.
    pub era: u32,
    /// Where the message is; none if only foreign programs ever wrote the topic.
    pub source: Option<Origin>,
    /// 0, or of a foreign program's record more than its offset: it has no source and counts as the highest so far.
    pub foreign: i64,
}

impl Rank {
    /// Of a message that was just appended to where its topic lives now.
    pub fn of_new(source: Origin, best: Option<Self>) -> Self {
        let era = match best {
            None => 0,
            Some(Self { era, source: Some(before), .. }) if before.place != source.place => era.saturating_add(1),
            Some(Self { era, .. }) => era,
        };
        Self { era, source: Some(source), foreign: 0 }
    }

    /// Of a message that was found in a log; `None` if its topic has come to live elsewhere since.
    pub fn of_found(source: Origin, best: Option<Self>) -> Option<Self> {
        let rank = Self::of_new(source, best);
        (rank.era == best.map_or(0, |best| best.era)).then_some(rank)
    }

    /// Of a foreign record at `offset` of `mqtt.retained`.
    pub fn of_foreign(offset: i64, best: Option<Self>) -> Self {
        let best = best.unwrap_or_default();
        Self { foreign: offset.max(best.foreign).saturating_add(1), ..best }
    }

    /// The partition of the source.
    pub fn place(&self) -> Option<Place> {
        self.source.map(|source| source.place)
    }
}
