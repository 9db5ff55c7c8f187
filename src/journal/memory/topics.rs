//! Kafka topics: what exists under which name.

use super::MemoryLog;
use super::log::Place;
use super::partition::PartitionLog;
use crate::journal::{JournalError, Refusal, TopicDescription, TopicSpec};
use crate::message::RecordRef;

/// Kafka's own default for `delete.retention.ms`: a day.
const TOMBSTONES_KEPT_MS: i64 = 86_400_000;

/// A kafka topic, or what is left of it after it was deleted.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) spec: TopicSpec,
    /// Kafka's topic id: another one when it is recreated.
    pub(super) uuid: u128,
    pub(super) compacted: bool,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub(super) stamped: bool,
    pub(super) tombstones_kept_ms: i64,
    /// `min.compaction.lag.ms`: younger records stay.
    pub(super) compaction_lag_ms: i64,
    record_bytes_max: Option<usize>,
    /// Empty after it was deleted.
    pub(super) partitions: Vec<PartitionLog>,
}

impl Topic {
    fn new(spec: TopicSpec, uuid: u128) -> Self {
        let config =
            |name: &str| spec.configs.iter().find(|(config, _)| config == name).map(|(_, value)| value.as_str());
        Self {
            compacted: config("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            stamped: config("message.timestamp.type") == Some("LogAppendTime"),
            tombstones_kept_ms: config("delete.retention.ms")
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(TOMBSTONES_KEPT_MS),
            compaction_lag_ms: config("min.compaction.lag.ms").and_then(|ms| ms.parse().ok()).unwrap_or(0),
            record_bytes_max: config("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
            partitions: std::iter::repeat_with(PartitionLog::default).take(spec.partitions as usize).collect(),
            spec,
            uuid,
        }
    }

    /// What Kafka would have against this record.
    pub(super) fn refusal(&self, record: &RecordRef<'_>, record_bytes: usize) -> Option<Refusal> {
        if self.record_bytes_max.is_some_and(|max| record_bytes > max) {
            Some(Refusal::TooLarge)
        } else if self.compacted && record.key.is_none() {
            Some(Refusal::Invalid)
        } else {
            None
        }
    }

    fn description(&self) -> TopicDescription {
        TopicDescription {
            name: self.spec.name.clone(),
            topic_id: self.uuid,
            partitions: self.spec.partitions,
            replication_factor: self.spec.replication_factor.unwrap_or(1),
            configs: self.spec.configs.clone(),
        }
    }
}

impl MemoryLog {
    /// What exists under these names.
    pub fn describe(&self, names: &[String]) -> Vec<Option<TopicDescription>> {
        names.iter().map(|name| self.topic(name).map(Topic::description)).collect()
    }

    /// Creates those that do not exist.
    ///
    /// # Errors
    /// One is to have no partitions.
    pub fn create(&mut self, specs: &[TopicSpec]) -> Result<(), JournalError> {
        for spec in specs {
            if spec.partitions == 0 {
                let doing = format!("to create the kafka topic {}", spec.name);
                return Err(JournalError::Refused { doing, why: "it has no partitions".into() });
            }
            if !self.by_name.contains_key(&spec.name) {
                self.add_topic(spec.clone());
            }
        }
        self.resolve_names();
        Ok(())
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(*self.by_name.get(name)?)
    }

    pub(super) fn partition_mut(&mut self, place: Place) -> Option<&mut PartitionLog> {
        self.topics.get_mut(place.slot)?.partitions.get_mut(place.number as usize)
    }

    pub(super) fn place(&self, topic: &str, number: u32) -> Option<Place> {
        let slot = *self.by_name.get(topic)?;
        let exists = (number as usize) < self.topics.get(slot)?.partitions.len();
        exists.then_some(Place { slot, number })
    }

    pub(super) fn add_topic(&mut self, mut spec: TopicSpec) {
        spec.configs.sort();
        let uuid = (u128::from(self.plan.seed) << 64) | (self.topics.len() as u128 + 1);
        self.by_name.insert(spec.name.clone(), self.topics.len());
        self.topics.push(Topic::new(spec, uuid));
    }

    /// Incarnations address kafka topics by index: finds again what stands behind each.
    pub(super) fn resolve_names(&mut self) {
        for incarnation in &mut self.incarnations {
            incarnation.slots = incarnation.names.iter().map(|name| self.by_name.get(name).copied()).collect();
        }
    }
}
