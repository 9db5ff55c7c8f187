//! A fetch session (KIP-227): Kafka remembers what is asked for, so that a request names only what changed and an
//! answer only what is new.

use std::collections::BTreeMap;

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use uuid::Uuid;

use crate::journal::{Isolation, Partition};

/// What is asked of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The kafka topic's id, so that a recreated one is not mistaken for it.
    pub topic_id: Uuid,
    /// Where to read.
    pub offset: i64,
    /// Of the leader we believe in; −1 if unknown.
    pub leader_epoch: i32,
    /// Of the last batch that was read; −1 if none. The leader compares: it tells if its log diverges from what was
    /// read.
    pub last_epoch: i32,
}

/// What all requests of one tail have in common.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Topics by index.
    pub names: Vec<TopicName>,
    /// For whom.
    pub isolation: Isolation,
    /// How long a request may be parked, in milliseconds.
    pub wait_ms: u32,
    /// Most bytes of an answer.
    pub bytes_max: u32,
    /// Most bytes of one partition in an answer.
    pub partition_bytes_max: u32,
}

/// ```text
///            first answer has an id                  answered
///   None ─────────────────────────────► Open ──────────────────► Open (next number)
///    ▲   (without: stays, asks in full)  │
///    └──────── error, connection lost ───┘
/// ```
#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Open {
        id: i32,
        number: i32,
    },
}

/// Not a session: neither opened nor continued.
const SESSIONLESS: (i32, i32) = (0, -1);
/// Opens a session.
const OPENING: (i32, i32) = (0, 0);

/// What Kafka remembers of one connection's requests.
#[derive(Debug, Default)]
pub struct Session {
    state: State,
    remembered: BTreeMap<Partition, Wanted>,
}

impl Session {
    /// The next request, for exactly `wanted`.
    pub fn request(&mut self, asking: &Asking, wanted: BTreeMap<Partition, Wanted>) -> FetchRequest {
        let State::Open { id, number } = self.state else {
            let request = full(asking, OPENING, &wanted);
            self.remembered = wanted;
            return request;
        };
        let changed = wanted.iter().filter(|(partition, wanted)| self.remembered.get(partition) != Some(wanted));
        // A partition whose topic id changed is another one to Kafka: the old one has to be forgotten, too.
        let gone = self.remembered.iter().filter(|(partition, before)| {
            wanted.get(partition).is_none_or(|wanted| wanted.topic_id != before.topic_id)
        });
        let request = base(asking, (id, number))
            .with_topics(topics(asking, changed))
            .with_forgotten_topics_data(forgotten(asking, gone));
        self.remembered = wanted;
        request
    }

    /// The request was answered, with this session id.
    pub fn on_answer(&mut self, session_id: i32) {
        self.state = match self.state {
            State::None if session_id == 0 => State::None,
            State::None => State::Open { id: session_id, number: 1 },
            State::Open { id, number } => State::Open { id, number: if number == i32::MAX { 1 } else { number + 1 } },
        };
    }

    /// It is over.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A request of its own, for exactly `wanted`.
pub fn sessionless(asking: &Asking, wanted: &BTreeMap<Partition, Wanted>) -> FetchRequest {
    full(asking, SESSIONLESS, wanted)
}

fn full(asking: &Asking, session: (i32, i32), wanted: &BTreeMap<Partition, Wanted>) -> FetchRequest {
    base(asking, session).with_topics(topics(asking, wanted.iter()))
}

fn base(asking: &Asking, (id, number): (i32, i32)) -> FetchRequest {
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(asking.wait_ms).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(i32::try_from(asking.bytes_max).unwrap_or(i32::MAX))
        .with_isolation_level(match asking.isolation {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        })
        .with_session_id(id)
        .with_session_epoch(number)
}

fn topics<'a>(asking: &Asking, wanted: impl Iterator<Item = (&'a Partition, &'a Wanted)>) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (partition, wanted) in wanted {
        let Some(name) = asking.names.get(usize::from(partition.topic.0)) else { continue };
        let asked = FetchPartition::default()
            .with_partition(i32::try_from(partition.number).unwrap_or(i32::MAX))
            .with_current_leader_epoch(wanted.leader_epoch)
            .with_fetch_offset(wanted.offset)
            .with_last_fetched_epoch(wanted.last_epoch)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(i32::try_from(asking.partition_bytes_max).unwrap_or(i32::MAX));
        match topics.last_mut() {
            Some(topic) if topic.topic == *name => topic.partitions.push(asked),
            Some(_) | None => topics.push(
                FetchTopic::default()
                    .with_topic(name.clone())
                    .with_topic_id(wanted.topic_id)
                    .with_partitions(vec![asked]),
            ),
        }
    }
    topics
}

fn forgotten<'a>(asking: &Asking, gone: impl Iterator<Item = (&'a Partition, &'a Wanted)>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for (partition, before) in gone {
        let Some(name) = asking.names.get(usize::from(partition.topic.0)) else { continue };
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        match topics.last_mut() {
            Some(topic) if topic.topic == *name => topic.partitions.push(number),
            Some(_) | None => topics.push(
                ForgottenTopic::default()
                    .with_topic(name.clone())
                    .with_topic_id(before.topic_id)
                    .with_partitions(vec![number]),
            ),
        }
    }
    topics
}

impl Wanted {
    /// Without what older versions cannot say.
    pub fn in_version(self, version: i16) -> Self {
        if version >= 12 { self } else { Self { last_epoch: -1, ..self } }
    }
}

#[cfg(test)]
mod tests;
