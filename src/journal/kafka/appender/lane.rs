//! One partition on its way to Kafka: one batch at a time, in order, with its sequence numbers.
//!
//! Invariant: at most one batch of a partition is with Kafka, so the batch that is sent again is always the last one
//! that its leader may have seen. A leader remembers that one through everything (of those before it, it forgets
//! all but the last when it restarts), so a repetition is always recognised.
//!
//! Invariant: a sequence number is used again only for the same bytes, or when no attempt with it can have been
//! appended. A batch with an open fate takes its epoch with it: the next one begins at sequence 0 of the next epoch,
//! and from then on its leader refuses whatever is still under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::slot::{Slot, Unsealed};
use super::verdict::Verdict;
use crate::journal::kafka::records::{BatchWalk, Compression, OpenBatch, SealedBatch};
use crate::journal::{Offset, Outcome, Partition, Refusal, Ticket};
use crate::message::RecordRef;

/// Own epochs end far below those of a fence (F9c).
const EPOCH_MAX: i16 = 30_000;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// ```text
///          records come             handed to a connection
///   Idle ───────────────► Ready ───────────────────────────► InFlight
///    ▲                      ▲ ▲                                │  │
///    │                      │ └── time is up ── Waiting ◄──────┘  │
///    │     there are more   │                   no answer, or     │
///    │  ┌───────────────────┘                   a passing error   │
///    └──┴─────────────────────────────────────────────────────────┘ decided
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// Something to send, as soon as its leader's turn comes.
    Ready,
    /// With Kafka.
    InFlight,
    /// To be sent again.
    Waiting {
        /// When.
        until: Instant,
    },
}

/// Appends whose fate is known now.
#[derive(Debug, PartialEq, Eq)]
pub struct Settled {
    /// What became of them.
    pub outcome: Outcome,
    /// Whose.
    pub tickets: Vec<Ticket>,
    /// What they took of the budget.
    pub budget_bytes: usize,
}

/// What is to be stamped on batches.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Of this incarnation.
    pub producer_id: i64,
    /// Of batches worth it.
    pub compression: Compression,
    /// Largest batch.
    pub batch_bytes_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Lane {
    /// Where records are put in.
    pub slot: Arc<Slot>,
    /// Where it stands.
    pub phase: Phase,
    stamp: Stamp,
    epoch: i16,
    /// Of the next batch to be sealed; it moves on when a batch is known to be written.
    sequence: i32,
    batch: Option<Outgoing>,
    /// Of a batch that had to be taken apart: to be sent before anything newer.
    parts: VecDeque<Unsealed>,
    /// Keeps its knowledge of how large batches are.
    spare: OpenBatch,
}

/// A sealed batch.
#[derive(Debug)]
struct Outgoing {
    sealed: SealedBatch,
    born: Instant,
    budget_bytes: usize,
    attempts: u32,
    /// Some attempt may have appended it.
    maybe_appended: bool,
}

impl Lane {
    /// A lane that has sent nothing yet.
    pub fn new(slot: Arc<Slot>, stamp: Stamp) -> Self {
        Self {
            slot,
            phase: Phase::Idle,
            stamp,
            epoch: 0,
            sequence: 0,
            batch: None,
            parts: VecDeque::new(),
            spare: OpenBatch::new(stamp.batch_bytes_max),
        }
    }

    /// Which partition.
    pub fn partition(&self) -> Partition {
        self.slot.partition
    }

    /// Whether no epoch is left: the process has to end.
    pub fn is_used_up(&self) -> bool {
        self.epoch >= EPOCH_MAX
    }

    /// The bytes to send now: the batch that was sent before, else the next one.
    pub fn stage(&mut self) -> Option<Bytes> {
        if self.batch.is_none() {
            let Unsealed { mut batch, born, budget_bytes } = match self.parts.pop_front() {
                Some(part) => part,
                None => self.slot.take(&mut self.spare)?,
            };
            let sealed = batch.seal(self.stamp.producer_id, self.epoch, self.sequence, self.stamp.compression)?;
            self.spare = batch;
            self.batch = Some(Outgoing { sealed, born, budget_bytes, attempts: 0, maybe_appended: false });
        }
        self.batch.as_ref().map(|batch| batch.sealed.bytes.clone())
    }

    /// How often the batch under way was sent before.
    pub fn attempts(&self) -> u32 {
        self.batch.as_ref().map_or(0, |batch| batch.attempts)
    }

    /// The staged bytes were handed to a connection.
    pub fn on_sent(&mut self) {
        self.phase = Phase::InFlight;
        if let Some(batch) = &mut self.batch {
            batch.attempts = batch.attempts.saturating_add(1);
        }
    }

    /// An attempt ended.
    pub fn on_verdict(&mut self, verdict: Verdict, now: Instant, settled: &mut Vec<Settled>) {
        let Some(mut batch) = self.batch.take() else { return };
        self.phase = Phase::Idle;
        match verdict {
            Verdict::Written(offset) => {
                self.advance(&batch);
                settled.push(batch.settle(Outcome::Written(offset)));
            }
            Verdict::WrittenSomewhere => {
                self.advance(&batch);
                settled.push(batch.settle(Outcome::Unknown));
            }
            Verdict::Retry { maybe_appended } => {
                batch.maybe_appended |= maybe_appended;
                let pause = RETRY_PAUSE_MIN.saturating_mul(1 << batch.attempts.saturating_sub(1).min(8));
                self.phase = Phase::Waiting { until: now + pause.min(RETRY_PAUSE_MAX) };
                self.batch = Some(batch);
            }
            Verdict::Fenced => settled.push(self.give_up(batch, Refusal::Fenced)),
            // Another attempt may have been appended: what this one was answered decides nothing.
            Verdict::Refused(_) | Verdict::TooLarge | Verdict::Invalid(_) | Verdict::OutOfSequence
                if batch.maybe_appended =>
            {
                settled.push(self.give_up(batch, Refusal::Invalid));
            }
            Verdict::Refused(why) => settled.push(batch.settle(Outcome::Refused(why))),
            Verdict::TooLarge => self.split(batch, Refusal::TooLarge, settled),
            Verdict::Invalid(named) if named.is_empty() => self.split(batch, Refusal::Invalid, settled),
            Verdict::Invalid(named) => self.leave_out(&batch, &named, settled),
            Verdict::OutOfSequence => {
                // The leader lost what came before. No attempt was appended: the same records go under the next epoch.
                self.next_epoch();
                self.phase = Phase::Waiting { until: now + RETRY_PAUSE_MIN };
                match batch.part(|_| true, batch.budget_bytes, self.stamp.batch_bytes_max) {
                    Some(again) => self.parts.push_front(again),
                    None => settled.push(batch.settle(Outcome::Refused(Refusal::Invalid))),
                }
            }
        }
    }

    /// Appends that waited too long, unless they are with Kafka: `limit` is the birth of the oldest that may still wait.
    pub fn expire(&mut self, limit: Instant, why: Refusal, settled: &mut Vec<Settled>) {
        if self.phase == Phase::InFlight {
            return;
        }
        if let Some(batch) = self.batch.take_if(|batch| batch.born <= limit) {
            settled.push(self.give_up(batch, why));
        }
        if self.batch.is_some() {
            return;
        }
        while let Some(part) = self.parts.pop_front_if(|part| part.born <= limit) {
            settled.extend(self.never_sent(part, why));
        }
        while self.parts.is_empty()
            && let Some(part) = self.slot.take_born_before(limit)
        {
            settled.extend(self.never_sent(part, why));
        }
    }

    /// Whether there is something to send.
    pub fn has_more(&self) -> bool {
        self.batch.is_some() || !self.parts.is_empty() || self.slot.has_records()
    }

    fn never_sent(&self, part: Unsealed, why: Refusal) -> Option<Settled> {
        let Unsealed { mut batch, budget_bytes, .. } = part;
        let sealed = batch.seal(self.stamp.producer_id, self.epoch, self.sequence, Compression::None)?;
        Some(Settled { outcome: Outcome::Refused(why), tickets: sealed.tickets, budget_bytes })
    }

    fn advance(&mut self, batch: &Outgoing) {
        let records = i32::try_from(batch.sealed.tickets.len()).unwrap_or(i32::MAX);
        // After the largest number comes 0, as Kafka counts.
        self.sequence = match self.sequence.checked_add(records) {
            Some(next) => next,
            None => records - (i32::MAX - self.sequence) - 1,
        };
    }

    fn next_epoch(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.sequence = 0;
    }

    /// The end of a batch that is not known to be written.
    fn give_up(&mut self, batch: Outgoing, why: Refusal) -> Settled {
        if batch.maybe_appended {
            self.next_epoch();
            batch.settle(Outcome::Unknown)
        } else {
            batch.settle(Outcome::Refused(why))
        }
    }

    /// Halves a batch until the one record is found that cannot be.
    fn split(&mut self, batch: Outgoing, why: Refusal, settled: &mut Vec<Settled>) {
        let count = batch.sealed.tickets.len();
        if count <= 1 {
            settled.push(batch.settle(Outcome::Refused(why)));
            return;
        }
        if why == Refusal::TooLarge {
            self.slot.learn_batch_bytes(batch.budget_bytes / 2);
        }
        let (half, bytes_max) = (count / 2, self.stamp.batch_bytes_max);
        let halves = [
            batch.part(|index| index < half, batch.budget_bytes / 2, bytes_max),
            batch.part(|index| index >= half, batch.budget_bytes - batch.budget_bytes / 2, bytes_max),
        ];
        if let [Some(first), Some(second)] = halves {
            self.parts.push_front(second);
            self.parts.push_front(first);
        } else {
            settled.push(batch.settle(Outcome::Refused(why)));
        }
    }

    /// Refuses the named records; the others go again.
    fn leave_out(&mut self, batch: &Outgoing, named: &[usize], settled: &mut Vec<Settled>) {
        let tickets = batch.sealed.tickets.iter().enumerate();
        let (out, kept): (Vec<_>, Vec<_>) = tickets.partition(|(index, _)| named.contains(index));
        let refused = |tickets: Vec<(usize, &Ticket)>, budget_bytes| Settled {
            outcome: Outcome::Refused(Refusal::Invalid),
            tickets: tickets.into_iter().map(|(_, ticket)| *ticket).collect(),
            budget_bytes,
        };
        let rest = batch.part(|index| !named.contains(&index), batch.budget_bytes, self.stamp.batch_bytes_max);
        let budget_bytes = if rest.is_some() { 0 } else { batch.budget_bytes };
        settled.push(refused(out, budget_bytes));
        match rest {
            Some(rest) => self.parts.push_front(rest),
            None if kept.is_empty() => {}
            None => settled.push(refused(kept, 0)),
        }
    }
}

impl Outgoing {
    fn settle(self, outcome: Outcome) -> Settled {
        Settled { outcome, tickets: self.sealed.tickets, budget_bytes: self.budget_bytes }
    }

    /// The records whose index is wanted, as a batch that is not sealed yet; `None` if there are none.
    fn part(&self, wanted: impl Fn(usize) -> bool, budget_bytes: usize, bytes_max: usize) -> Option<Unsealed> {
        let raw = BatchWalk::new(self.sealed.bytes.clone()).next()?.ok()?;
        let nowhere = Partition { topic: crate::journal::TopicIndex(0), number: 0 };
        let opened = raw.open(nowhere, Offset(0), usize::MAX).ok()?;
        let mut batch = OpenBatch::new(bytes_max);
        for (index, (record, ticket)) in opened.iter().zip(&self.sealed.tickets).enumerate() {
            if wanted(index) {
                let headers: Vec<_> = record.headers().collect();
                let again = RecordRef {
                    key: record.key,
                    value: record.value(),
                    headers: &headers,
                    timestamp_ms: record.timestamp_ms,
                };
                batch.push(&again, *ticket).ok()?;
            }
        }
        (!batch.is_empty()).then_some(Unsealed { batch, born: self.born, budget_bytes })
    }
}

#[cfg(test)]
mod tests;
