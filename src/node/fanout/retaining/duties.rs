//! What this node does as the keeper of partitions of `mqtt.retained`: a dead node's duty (R4b), and the rank of what
//! foreign programs wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Answer, RetainedAnswer, Retaining, Standing, ends_of};
use crate::clock;
use crate::journal::{Isolation, Offset, Partition, SharedJournal, Ticket};
use crate::ledger::ids::{Incarnation, Origin, Place};
use crate::ledger::retained::Rank;
use crate::ledger::retained::keeper::Action;
use crate::ledger::retained::marks::{DUTY_TICK, Vector};
use crate::ledger::retained::record;
use crate::ledger::retained::store::Entry;
use crate::ledger::retained::writer::Obligation;
use crate::message::{self, Decoded, Message, RecordRef};
use crate::node::writer::NOBODY;
use crate::ops::tasks;
use crate::route::mapping::{MappedTopic, Mapping};
use crate::route::partition::partition_of;

/// A producer id that no record has.
const NOBODYS: i64 = i64::MIN;
/// A node that left a mark and no heartbeat for so many ticks died before it served.
const UNKNOWN_TICKS_MAX: u32 = 12;

/// Bytes of one read.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// How long a read that failed rests before it is tried again.
const READ_AGAIN_MS: u64 = 200;

/// By topic, the newest retain-flagged message of a node.
pub(in crate::node::fanout) type FoundRetains = BTreeMap<Box<str>, (Origin, Message)>;

impl Retaining {
    fn is_kept(&self, partition: u32) -> bool {
        self.members.keeper_of(partition) == Some(self.incarnation)
    }

    /// Takes over what the dead left, and ends what is done.
    pub(super) fn keep(&mut self) {
        if self.standing == Standing::Replaying {
            return;
        }
        let (members, me) = (&self.members, self.incarnation);
        let unknown = &self.unknown;
        let is_over =
            |node| members.is_fenced(node) || unknown.get(&node).is_some_and(|ticks| *ticks >= UNKNOWN_TICKS_MAX);
        let is_kept = |partition| members.keeper_of(partition) == Some(me);
        for action in self.keeper.poll(&self.marks, &self.writer, is_over, is_kept) {
            match action {
                Action::Look { dead, from, partitions } => self.look(dead, from, partitions),
                Action::Finish { dead, partitions } => self.finish(dead, &partitions),
            }
        }
    }

    /// Counts for how long nodes have had a mark and no heartbeat.
    pub(super) fn count_unknown(&mut self) {
        let marked = self.marks.partitions().flat_map(|partition| self.marks.in_partition(partition));
        let unknown: BTreeSet<Incarnation> =
            marked.map(|(node, _)| node).filter(|node| self.members.member(*node).is_none()).collect();
        self.unknown.retain(|node, _| unknown.contains(node));
        for node in unknown {
            *self.unknown.entry(node).or_default() += 1;
        }
    }

    fn finish(&self, dead: Incarnation, partitions: &BTreeSet<u32>) {
        tracing::info!(%dead, "what a dead node owed to mqtt.retained is complete");
        let key = record::mark_key(dead);
        for &number in partitions {
            let record = RecordRef { key: Some(&key), value: None, headers: &[], timestamp_ms: clock::wall_ms() };
            let partition = Partition { topic: self.retained, number };
            // What is not taken or lost is written again with the next tick.
            let _ = self.journal.append(Ticket { owner: NOBODY, sequence: 0 }, partition, &record);
        }
    }

    fn look(&self, dead: Incarnation, from: Vector, partitions: BTreeSet<u32>) {
        tracing::info!(%dead, "looking for what a dead node owed to mqtt.retained");
        // Who never beat appended nothing for clients.
        let producer_id = self.members.member(dead).map_or(NOBODYS, |member| member.node.producer_id);
        let look = self.look_for(producer_id, self.message_partitions(), from, partitions.clone());
        let answers_to = self.answers_to.clone();
        tasks::spawn("retained look-up", async move {
            let Some(found) = look.run().await else { return };
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Retained(RetainedAnswer::Looked { dead, partitions, found })).await;
        });
    }

    pub(super) fn look_for(
        &self,
        producer_id: i64,
        messages: Vec<Partition>,
        from: Vector,
        belongs: BTreeSet<u32>,
    ) -> Look {
        let places = messages.into_iter().filter_map(|partition| Some((partition, self.place_of(partition)?)));
        Look {
            journal: Arc::clone(&self.journal),
            mapping: Arc::clone(&self.mapping),
            producer_id,
            from,
            places: places.collect(),
            belongs,
            partitions: self.partitions().end,
        }
    }

    pub(super) fn on_looked(&mut self, dead: Incarnation, partitions: &BTreeSet<u32>, found: FoundRetains) {
        if !self.keeper.is_awaited(dead, partitions) {
            return;
        }
        let mut topics = BTreeSet::new();
        for (topic, (origin, message)) in found {
            let best = self.store.get(&topic).map(Entry::best);
            // Its topic lives elsewhere since, and has been written there.
            let Some(rank) = Rank::of_found(origin, best) else { continue };
            let message = (!message.payload().is_empty()).then_some(message);
            let obligation = Obligation { rank, message, must_be_last: true, tick: DUTY_TICK };
            self.writer.owe(&self.store, &topic, obligation);
            topics.insert(topic);
        }
        // A repair that the dead node did not come to.
        for topic in self.store.astray(|partition| partitions.contains(&partition)) {
            self.writer.rewrite(&self.store, &topic, DUTY_TICK);
            topics.insert(topic.into());
        }
        self.keeper.on_looked(dead, topics);
        self.work();
        self.keep();
    }

    /// Compaction would lose the rank of a foreign program's record: it is written again with its rank.
    pub(super) fn rewrite_foreign(&mut self) {
        if !self.store.has_unranked() {
            return;
        }
        let tick = self.sampler.tick();
        for topic in self.store.unranked(|partition| self.is_kept(partition)) {
            if !self.writer.is_writing(&topic) {
                self.writer.rewrite(&self.store, &topic, tick);
            }
        }
    }
}

/// A walk through everything that a dead node may have left.
pub(super) struct Look {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    /// The dead node's: a foreign program's retain header retains nothing.
    producer_id: i64,
    from: Vector,
    places: Vec<(Partition, Place)>,
    /// Partitions of `mqtt.retained` to look for, of so many.
    belongs: BTreeSet<u32>,
    partitions: u32,
}

impl Look {
    /// `None`: the journal is closed.
    pub(super) async fn run(self) -> Option<FoundRetains> {
        let mut found = FoundRetains::new();
        let partitions: Vec<Partition> = self.places.iter().map(|(partition, _)| *partition).collect();
        let ends = ends_of(&self.journal, &partitions).await?;
        for (&(partition, place), ends) in self.places.iter().zip(ends) {
            let marked = self.from.get(&place).map_or(ends.log_start, |from| Offset(*from));
            let mut next = marked.max(ends.log_start);
            while next < ends.high_watermark {
                let read = self.journal.read(partition, next, READ_BYTES_MAX, Isolation::ReadUncommitted).await;
                let answer = match read {
                    Ok(answer) => answer,
                    Err(crate::journal::JournalError::Closed) => return None,
                    Err(error) => {
                        tracing::debug!(%error, ?partition, "a look for retained messages waits");
                        tokio::time::sleep(std::time::Duration::from_millis(READ_AGAIN_MS)).await;
                        continue;
                    }
                };
                for batch in answer.batches.iter().filter(|batch| batch.producer_id == self.producer_id) {
                    batch.iter().for_each(|stored| self.take(&mut found, partition, place, &stored));
                }
                if answer.next <= next {
                    break;
                }
                next = answer.next;
            }
        }
        Some(found)
    }

    fn take(
        &self,
        found: &mut FoundRetains,
        partition: Partition,
        place: Place,
        stored: &crate::journal::StoredRecord<'_>,
    ) {
        let topic = stored.key.and_then(|key| self.mapping.to_mqtt(MappedTopic(partition.topic.0), key));
        let Some(topic) = topic.filter(|topic| self.belongs.contains(&partition_of(topic.as_bytes(), self.partitions)))
        else {
            return;
        };
        match message::decode(&topic, stored.value(), stored.headers()) {
            Decoded::Message { message, headers_ignored: _ } if message.retain() => {
                let origin = Origin { place, offset: stored.offset.0 };
                let newest = found.entry(Box::from(&*topic)).or_insert_with(|| (origin, message.clone()));
                if newest.0 < origin {
                    *newest = (origin, message);
                }
            }
            Decoded::Message { .. } | Decoded::Tombstone | Decoded::Fence => {}
        }
    }
}
