//! What this node writes into `mqtt.retained`: records of messages, and marks.

use super::{Answer, RetainedAnswer, Retaining, Standing};
use crate::clock;
use crate::journal::{NotTaken, Outcome, Partition, Refusal, Ticket, TopicIndex};
use crate::ledger::ids::Origin;
use crate::ledger::retained::Rank;
use crate::ledger::retained::marks::{DUTY_TICK, Vector};
use crate::ledger::retained::record;
use crate::ledger::retained::store::Entry;
use crate::ledger::retained::writer::{Obligation, Write, Written};
use crate::message::RecordRef;
use crate::node::retains::Retain;
use crate::node::writer::RETAINED;

/// From here on a ticket's sequence names a mark.
pub(super) const FIRST_MARK: u64 = 1 << 62;

impl Retaining {
    /// R1: a retain-flagged message is in the log.
    pub(super) fn owe(&mut self, ticket: Ticket) {
        let Some(Retain { message, written: Some((partition, offset)), tick }) = self.retains.take(ticket) else {
            return;
        };
        // The kafka topic was deleted since: so was the message.
        let Some(place) = self.place_of(partition) else { return };
        let topic = message.topic().to_owned();
        let best = self.store.get(&topic).map(Entry::best);
        let rank = Rank::of_new(Origin { place, offset: offset.0 }, best);
        let message = (!message.payload().is_empty()).then_some(message);
        self.writer.owe(&self.store, &topic, Obligation { rank, message, must_be_last: false, tick });
    }

    /// Appends what may be appended now.
    pub(super) fn write_owed(&mut self) {
        while !self.stalled
            && let Some(write) = self.writer.poll(&self.store)
        {
            let Write { sequence, topic, rank, message } = write;
            let partition = Partition { topic: self.retained, number: self.store.partition_of(&topic) };
            let ticket = Ticket { owner: RETAINED, sequence };
            let taken = record::encode(&topic, rank, message.as_ref(), clock::wall_ms(), |record| {
                self.journal.append(ticket, partition, record)
            });
            if let Err(why) = taken {
                self.stalled = why == NotTaken::Full;
                let written = match why {
                    NotTaken::TooLarge => self.given_up(),
                    NotTaken::Full | NotTaken::NoSuchPartition | NotTaken::Closed => Written::Not,
                };
                self.writer.on_outcome(&self.store, sequence, written);
            }
        }
    }

    fn given_up(&self) -> Written {
        self.metrics.retained_refused.inc();
        tracing::error!("mqtt.retained takes smaller records than the topics of messages: a message is not retained");
        Written::Never
    }

    pub(in crate::node::fanout) fn on_outcome(&mut self, sequence: u64, outcome: Outcome) {
        if sequence >= super::doubts::FIRST_PROBE {
            self.on_probe_outcome(sequence, outcome);
            return;
        }
        if sequence >= FIRST_MARK {
            self.on_mark_outcome(sequence, outcome);
            return;
        }
        let written = match outcome {
            Outcome::Written(offset) => Written::At(offset.0),
            Outcome::Unknown => Written::Unknown,
            Outcome::Refused(Refusal::TooLarge) => self.given_up(),
            Outcome::Refused(
                Refusal::NotAuthorized
                | Refusal::Invalid
                | Refusal::NoSuchPartition
                | Refusal::Deadline
                | Refusal::Fenced,
            ) => Written::Not,
        };
        self.writer.on_outcome(&self.store, sequence, written);
        self.work();
    }

    // ---- marks

    /// Asks where the partitions of messages end.
    pub(super) fn sample(&mut self) {
        if self.sampling || self.sampler.has_sample() {
            return;
        }
        self.sampling = true;
        let partitions = self.message_partitions();
        let places: Vec<_> = partitions.iter().map(|partition| self.place_of(*partition)).collect();
        self.ask(partitions, |ends| {
            let ends = places.into_iter().zip(ends);
            let vector: Vector = ends.filter_map(|(place, (_, ends))| Some((place?, ends.high_watermark.0))).collect();
            Answer::Retained(RetainedAnswer::Sample(vector))
        });
    }

    pub(super) fn message_partitions(&self) -> Vec<Partition> {
        let topics = u16::try_from(self.mapping.kafka_topics().len()).unwrap_or(u16::MAX);
        let of = |topic| (0..self.journal.partitions(topic)).map(move |number| Partition { topic, number });
        (0..topics).map(TopicIndex).flat_map(of).collect()
    }

    pub(super) fn on_sample(&mut self, ends: Vector) {
        self.sampling = false;
        self.sampler.on_ends(ends);
        self.retains.set_tick(self.sampler.tick());
        self.try_mark();
    }

    /// R4a, R4c
    pub(super) fn try_mark(&mut self) {
        if !self.sampler.has_sample() {
            return;
        }
        let duty = if self.keeper.is_looking() { DUTY_TICK } else { u32::MAX };
        let oldest = self.retains.oldest_tick().min(self.writer.oldest_tick()).min(duty);
        if let Some(mark) = self.sampler.poll(oldest) {
            self.mark = mark;
            self.unmarked = self.partitions().collect();
            self.write_marks();
        }
    }

    /// Where it is not in the log yet.
    pub(super) fn write_marks(&mut self) {
        if self.unmarked.is_empty() {
            return;
        }
        let (key, value) = (record::mark_key(self.incarnation), record::mark(&self.mark));
        for number in self.unmarked.clone() {
            let sequence = self.next_mark;
            let ticket = Ticket { owner: RETAINED, sequence };
            let record =
                RecordRef { key: Some(&key), value: Some(&value), headers: &[], timestamp_ms: clock::wall_ms() };
            let partition = Partition { topic: self.retained, number };
            if self.journal.append(ticket, partition, &record).is_ok() {
                self.next_mark += 1;
                self.mark_writes.insert(sequence, number);
                self.unmarked.remove(&number);
            }
        }
    }

    fn on_mark_outcome(&mut self, sequence: u64, outcome: Outcome) {
        let Some(partition) = self.mark_writes.remove(&sequence) else { return };
        match outcome {
            Outcome::Written(_) => {}
            // Again with the next tick, behind this one.
            Outcome::Refused(_) | Outcome::Unknown => {
                self.unmarked.insert(partition);
            }
        }
        if self.standing == Standing::Marking && self.mark_writes.is_empty() && self.unmarked.is_empty() {
            self.standing = Standing::Ready;
            if let Some(ready) = self.on_ready.take() {
                // Who started the node may have gone away.
                let _ = ready.send(());
            }
        }
    }
}
