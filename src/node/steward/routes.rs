//! Where topics and wills live in the log, and a look through a partition.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::ASK_AGAIN_MS;
use crate::journal::{Isolation, Offset, Partition, SharedJournal, TopicIndex};
use crate::ledger::ids::{Nonce, Place, Token, topic_number};
use crate::ledger::state::Will;
use crate::message;
use crate::route::mapping::Mapping;
use crate::route::partition::partition_of;
use crate::session::OwnedPublish;

/// Bytes of one read of a look-up.
const SCAN_BYTES_MAX: usize = 1024 * 1024;

/// Where topics live.
pub(super) struct Routes {
    pub(super) journal: SharedJournal,
    pub(super) mapping: Arc<Mapping>,
    pub(super) token_tick: Arc<AtomicU32>,
}

impl Routes {
    pub(super) fn of_topic(&self, topic: &str) -> Option<(Partition, Place)> {
        let (mapped, key) = self.mapping.to_kafka(topic);
        let topic = TopicIndex(mapped.0);
        let partitions = self.journal.partitions(topic);
        if partitions == 0 {
            return None;
        }
        let partition = Partition { topic, number: partition_of(&key, partitions) };
        Some((partition, self.place_of(partition)?))
    }

    pub(super) fn place_of(&self, partition: Partition) -> Option<Place> {
        let topic = topic_number(self.journal.topic_id(partition.topic)?);
        Some(Place { topic, partition: partition.number })
    }

    pub(super) fn partition_of(&self, place: Place) -> Option<Partition> {
        self.message_partitions().into_iter().find(|partition| self.place_of(*partition) == Some(place))
    }

    pub(super) fn place_of_will(&self, will: &Will) -> Option<Place> {
        let publish = OwnedPublish::from_frame(will.publish.clone());
        let topic = publish.publish()?.topic.to_owned();
        self.of_topic(&topic).map(|(_, place)| place)
    }

    /// Every partition of every kafka topic with messages.
    pub(super) fn message_partitions(&self) -> Vec<Partition> {
        let topics = u16::try_from(self.mapping.kafka_topics().len()).unwrap_or(u16::MAX);
        let of = |topic| {
            let topic = TopicIndex(topic);
            (0..self.journal.partitions(topic)).map(move |number| Partition { topic, number })
        };
        (0..topics).flat_map(of).collect()
    }

    pub(super) fn tick(&self) -> &AtomicU32 {
        &self.token_tick
    }
}

/// The tokens of `nonces` from `from` to the high watermark as it is now, uncommitted records included.
pub(super) async fn look_through(
    journal: &SharedJournal,
    partition: Partition,
    from: Offset,
    nonces: &[Nonce],
) -> Vec<Token> {
    let mut found = Vec::new();
    let mut next = from;
    let mut end = None;
    loop {
        let answer = match journal.read(partition, next, SCAN_BYTES_MAX, Isolation::ReadUncommitted).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, ?partition, "a look-up waits");
                tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await;
                continue;
            }
        };
        let end = *end.get_or_insert(answer.ends.high_watermark);
        for record in answer.batches.iter().flatten() {
            let token = message::token(record.headers()).and_then(Token::from_bytes);
            found.extend(token.filter(|token| nonces.contains(&token.nonce)));
        }
        if answer.next >= end || answer.next <= next && answer.batches.is_empty() {
            return found;
        }
        next = answer.next.max(next);
    }
}
