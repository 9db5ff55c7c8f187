//! What a tail makes of the answers it gets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::unpack::{Packed, Unpacked};
use super::{KafkaTail, Lane, Phase, Request, SeenTopic};
use crate::clock;
use crate::journal::kafka::connection::Reply;
use crate::journal::kafka::metadata::Cluster;
use crate::journal::kafka::records::RecordsError;
use crate::journal::kafka::wire::{self, Call, code};
use crate::journal::{Ends, JournalError, Offset, Partition, TailEvent, TopicIndex};

/// A batch that came in broken may have been broken on its way.
const CHECKSUM_FAILURES_MAX: u32 = 3;

/// The ends that came with an answer.
pub fn ends_of(part: &PartitionData) -> Ends {
    let high_watermark = Offset(part.high_watermark);
    let last_stable = if part.last_stable_offset < 0 { high_watermark } else { Offset(part.last_stable_offset) };
    Ends { log_start: Offset(part.log_start_offset), last_stable, high_watermark }
}

impl KafkaTail {
    pub(super) fn on_answer(&mut self, number: u64, reply: Reply, now: Instant) {
        let Some(request) = self.requests.remove(&number) else { return };
        let Some(node) = self.nodes.get_mut(&request.node) else { return };
        let link = match request.lane {
            Lane::Long => {
                node.long_is_out = false;
                node.rest.on_answer(reply.as_ref().map_or(0, bytes::Bytes::len));
                &mut node.long
            }
            Lane::Short => {
                node.short_is_out = false;
                &mut node.short
            }
        };
        let answered = reply.is_ok();
        let answer = reply.map_err(|lost| lost.to_string());
        match answer.and_then(|bytes| wire::decode::<<FetchRequest as Call>::Answer>(bytes, request.version)) {
            Ok(answer) => {
                link.hold_back(answer.throttle_time_ms);
                if request.lane == Lane::Long && answer.error_code == code::NONE {
                    node.session.on_answer(answer.session_id);
                }
                self.on_fetched(&request, answer, now);
            }
            Err(error) => {
                tracing::debug!(error, node = request.node, "a Fetch request got no answer");
                if answered {
                    link.close();
                }
                link.on_lost(now);
                if request.lane == Lane::Long {
                    node.session.reset();
                }
                self.stats.connections_lost.fetch_add(1, Ordering::Relaxed);
                self.metadata.refresh();
                self.free(&request);
            }
        }
    }

    /// What was asked for may be asked for again.
    fn free(&mut self, request: &Request) {
        for (partition, generation) in &request.partitions {
            if let Some(follow) = self.follows.get_mut(partition)
                && follow.generation == *generation
                && follow.phase == Phase::Asked
            {
                follow.phase = Phase::Free;
            }
        }
    }

    fn on_fetched(&mut self, request: &Request, answer: FetchResponse, now: Instant) {
        if answer.error_code != code::NONE {
            tracing::debug!(error = wire::words(answer.error_code), "a fetch session ended");
            if let Some(node) = self.nodes.get_mut(&request.node) {
                node.session.reset();
            }
            for (partition, generation) in &request.partitions {
                self.wait(*partition, *generation, now);
            }
            return;
        }
        self.free(request);
        for (partition, generation) in &request.partitions {
            if self.follows.get(partition).is_some_and(|follow| follow.generation == *generation) {
                self.stats.fetched(*partition, now);
            }
        }
        let cluster = Arc::clone(&self.cluster.borrow());
        for topic in answer.responses {
            let Some(index) = self.topic_of(&topic, &cluster, request.version) else { continue };
            for part in topic.partitions {
                let Ok(number) = u32::try_from(part.partition_index) else { continue };
                let partition = Partition { topic: index, number };
                if let Some(follow) = self.follows.get(&partition)
                    && request.generation(partition) == Some(follow.generation)
                {
                    self.on_part(partition, part, now);
                }
            }
        }
    }

    fn topic_of(&self, topic: &FetchableTopicResponse, cluster: &Cluster, version: i16) -> Option<TopicIndex> {
        let position = if version >= 13 {
            cluster.topics.iter().position(|known| known.id == topic.topic_id)
        } else {
            self.asking.names.iter().position(|name| *name == topic.topic)
        };
        Some(TopicIndex(u16::try_from(position?).ok()?))
    }

    fn wait(&mut self, partition: Partition, generation: u64, now: Instant) {
        if let Some(follow) = self.follows.get_mut(&partition)
            && follow.generation == generation
        {
            follow.wait(now);
        }
    }

    fn on_part(&mut self, partition: Partition, mut part: PartitionData, now: Instant) {
        let Some(follow) = self.follows.get_mut(&partition) else { return };
        match part.error_code {
            code::NONE => {}
            code::OFFSET_OUT_OF_RANGE => {
                follow.phase = Phase::Undecided;
                self.undecided.push_back((partition, follow.generation));
                return;
            }
            code::TOPIC_AUTHORIZATION_FAILED => {
                return self.on_gap(partition, "Kafka does not authorize this node to read it".to_owned());
            }
            error => {
                tracing::debug!(?partition, error = wire::words(error), "a partition could not be fetched");
                follow.wait(now);
                self.metadata.refresh();
                return;
            }
        }
        let position = follow.next;
        if part.diverging_epoch.epoch >= 0 && part.diverging_epoch.end_offset >= 0 {
            let end = Offset(part.diverging_epoch.end_offset.min(position.0));
            self.stop(partition);
            self.events.push_back(TailEvent::Rewound { partition, position, end });
            return;
        }
        let ends = ends_of(&part);
        if part.last_stable_offset >= 0 {
            self.stats.ends(partition, ends);
        }
        let records = part.records.take().unwrap_or_default();
        if let Some(stats) = self.stats.topics.get(usize::from(partition.topic.0)) {
            stats.bytes_read.fetch_add(records.len() as u64, Ordering::Relaxed);
        }
        let packed = Packed {
            partition,
            from: position,
            isolation: self.asking.isolation,
            bytes_max: self.options.decompressed_bytes_max,
            aborted: part.aborted_transactions.take().unwrap_or_default(),
            records,
        };
        self.on_unpacked(partition, packed.unpack(), ends, now);
    }

    fn on_unpacked(&mut self, partition: Partition, unpacked: Unpacked, ends: Ends, now: Instant) {
        let Some(follow) = self.follows.get_mut(&partition) else { return };
        let moved = unpacked.next > follow.next;
        follow.next = unpacked.next;
        if unpacked.leader_epoch >= 0 {
            follow.last_epoch = unpacked.leader_epoch;
        }
        // The batches themselves tell how far they go: only what is beyond them is worth an event.
        let told = unpacked.batches.last().map(|batch| batch.next_offset);
        let is_news = match told {
            Some(told) => told < unpacked.next || follow.ends.is_none(),
            None => moved || follow.ends != Some(ends),
        };
        follow.ends = Some(ends);
        let next = follow.next;
        self.events.extend(unpacked.batches.into_iter().map(TailEvent::Batch));
        if is_news {
            self.events.push_back(TailEvent::Progress { partition, next, ends });
        }
        match unpacked.error {
            None => follow.failures = 0,
            Some(RecordsError::Checksum { .. }) if follow.failures < CHECKSUM_FAILURES_MAX => follow.wait(now),
            Some(error) => self.on_gap(partition, error.to_string()),
        }
    }

    fn on_gap(&mut self, partition: Partition, why: String) {
        self.stop(partition);
        self.events.push_back(TailEvent::Gap { partition, why });
    }

    /// The ends of a partition whose position its leader found out of range.
    pub(super) fn on_decided(&mut self, partition: Partition, generation: u64, ends: Result<Vec<Ends>, JournalError>) {
        let Some(follow) = self.follows.get_mut(&partition) else { return };
        if follow.generation != generation || follow.phase != Phase::Undecided {
            return;
        }
        let position = follow.next;
        match ends.map(|ends| ends.first().copied()) {
            Ok(Some(ends)) if position < ends.log_start => {
                self.stop(partition);
                self.events.push_back(TailEvent::BelowLogStart { partition, position, log_start: ends.log_start });
            }
            Ok(Some(ends)) if position > ends.high_watermark => {
                self.stop(partition);
                self.events.push_back(TailEvent::Rewound { partition, position, end: ends.high_watermark });
            }
            // In range after all: perhaps the leader could not compare epochs.
            Ok(_) => {
                follow.last_epoch = -1;
                follow.wait(clock::now());
            }
            Err(error) => {
                tracing::debug!(%error, ?partition, "the ends of a partition are not known yet");
                follow.wait(clock::now());
            }
        }
    }

    /// The cluster changed: are the kafka topics still those that are followed?
    pub(super) fn on_cluster(&mut self) {
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        let mut recreated = Vec::new();
        for (index, seen) in &mut self.topics {
            let Some(topic) = cluster.topic(*index) else { continue };
            let partitions = cluster.partitions(*index);
            if topic.id != seen.id {
                recreated.push(*index);
                *seen = SeenTopic { id: topic.id, partitions };
            } else if partitions > seen.partitions {
                seen.partitions = partitions;
                self.events.push_back(TailEvent::PartitionsAdded { topic: *index, partitions });
            }
        }
        for topic in recreated {
            let gone: Vec<Partition> =
                self.follows.keys().copied().filter(|partition| partition.topic == topic).collect();
            for partition in gone {
                self.stop(partition);
            }
            self.events.push_back(TailEvent::Recreated { topic });
        }
    }
}
