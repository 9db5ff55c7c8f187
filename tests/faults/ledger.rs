//! What was asked of a journal, and what it said became of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::journal::{AckGroup, AckSink, NotTaken, Offset, Outcome, Ticket};

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// [`crate::load::Load`].
    Load,
    /// The scenario.
    Scenario,
}

/// One append. Its id is its place in the ledger and its ticket's sequence.
#[derive(Clone, Debug)]
pub struct Entry {
    pub partition: u32,
    /// Appends of one source are in the order of their ids; those of two may cross.
    pub source: Source,
    pub bytes: usize,
    pub asked: Instant,
    pub not_taken: Option<NotTaken>,
    /// With the time. More than one is a defect.
    pub outcomes: Vec<(Outcome, Instant)>,
}

/// All appends of one journal.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Entry>>);

impl AckSink for Ledger {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let now = clock::now();
        let mut entries = self.lock();
        for (index, ticket) in (0..).zip(group.tickets) {
            let outcome = match group.outcome {
                Outcome::Written(first) => Outcome::Written(Offset(first.0 + index)),
                other @ (Outcome::Refused(_) | Outcome::Unknown) => other,
            };
            let entry = &mut entries[usize::try_from(ticket.sequence).unwrap()];
            assert_eq!(entry.partition, group.partition.number, "an outcome for another partition");
            entry.outcomes.push((outcome, now));
        }
    }

    fn flush(&self) {}
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new append, before the journal is asked; its id.
    pub fn ask(&self, source: Source, partition: u32, bytes: usize) -> u64 {
        let mut entries = self.lock();
        let asked = clock::now();
        entries.push(Entry { partition, source, bytes, asked, not_taken: None, outcomes: Vec::new() });
        entries.len() as u64 - 1
    }

    pub fn not_taken(&self, id: u64, why: NotTaken) {
        self.lock()[usize::try_from(id).unwrap()].not_taken = Some(why);
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// Appends that were taken and have no outcome yet.
    pub fn open(&self) -> usize {
        self.lock().iter().filter(|entry| entry.not_taken.is_none() && entry.outcomes.is_empty()).count()
    }

    /// Partitions in which an append asked for after `since` was written.
    pub fn written_since(&self, since: Instant) -> Vec<u32> {
        let entries = self.lock();
        let written = entries.iter().filter(|entry| entry.asked >= since && entry.offset().is_some());
        let mut partitions: Vec<u32> = written.map(|entry| entry.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// The longest time in which nothing was written although something was asked for.
    pub fn longest_silence(&self) -> Duration {
        let entries = self.lock();
        let mut written: Vec<Instant> = entries.iter().filter_map(Entry::written_at).collect();
        written.sort_unstable();
        written.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Entry {
    pub fn offset(&self) -> Option<i64> {
        self.outcomes.iter().find_map(|(outcome, _)| match outcome {
            Outcome::Written(offset) => Some(offset.0),
            Outcome::Refused(_) | Outcome::Unknown => None,
        })
    }

    pub fn written_at(&self) -> Option<Instant> {
        self.outcomes.iter().find(|(outcome, _)| matches!(outcome, Outcome::Written(_))).map(|(_, at)| *at)
    }
}

pub fn ticket(id: u64) -> Ticket {
    Ticket { owner: 7, sequence: id }
}
