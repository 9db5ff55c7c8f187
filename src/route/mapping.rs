//! MQTT topic ↔ kafka topic and record key.

use std::borrow::Cow;

use crate::mqtt::TopicFilter;

/// Index of a kafka topic among [`Mapping::kafka_topics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappedTopic(pub u16);

/// One rule as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// MQTT filter with optional named levels (`cars/{vin}/speed`, `+`, `#`).
    pub filter: String,
    /// The kafka topic.
    pub kafka_topic: String,
    /// Key template over the named levels; `None` means the whole MQTT topic.
    pub key: Option<String>,
}

/// Why rules were refused: which rule, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mapping rule {rule}: {what}")]
pub struct MappingError {
    /// Number of the rule, from 1; 0 is the default kafka topic.
    pub rule: usize,
    /// What is wrong.
    pub what: String,
}

/// Where a filter's messages can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The kafka topic.
    pub topic: MappedTopic,
    /// The one key, if only one can match: then only its partition need be read.
    pub key: Option<Vec<u8>>,
}

/// The rules, compiled.
#[derive(Debug)]
pub struct Mapping {
    _todo: (),
}

impl Mapping {
    /// Compiles the rules; what no rule matches goes to `default_topic` under its whole MQTT topic.
    ///
    /// # Errors
    /// A rule that cannot work.
    pub fn new(_rules: &[RuleSpec], _default_topic: &str) -> Result<Self, MappingError> {
        todo!("route")
    }
    /// Every kafka topic once; [`MappedTopic`] indexes it.
    pub fn kafka_topics(&self) -> &[String] {
        todo!("route")
    }
    /// Where a message of `topic` goes, and under which key: the first rule that matches.
    pub fn to_kafka<'t>(&self, _topic: &'t str) -> (MappedTopic, Cow<'t, [u8]>) {
        todo!("route")
    }
    /// The MQTT topic of a record, if it stands for one: the key must be UTF-8, a legal topic name, and a publish of
    /// that topic must map back to this kafka topic and key.
    pub fn to_mqtt<'k>(&self, _topic: MappedTopic, _key: &'k [u8]) -> Option<Cow<'k, str>> {
        todo!("route")
    }
    /// The kafka topics that hold messages `filter` can match: no others need be read.
    pub fn touched_by(&self, _filter: &TopicFilter) -> Vec<Touch> {
        todo!("route")
    }
}
