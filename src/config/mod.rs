//! Layer 6: what the operator wants, read once and typed.
//!
//! Sources, later ones win: the defaults in `default.toml` (which is also what `millrace config default` prints), TOML
//! files, environment variables `MILLRACE__A__B`, flags. [`load`] merges them and parses the result into a [`Config`];
//! every [`ConfigError`] names the key and where its value came from. Nothing behind this module sees a string that
//! still has to be understood.

mod layer;
mod load;
mod parse;
pub mod units;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use layer::Flag;
pub use load::{ConfigError, ConfigErrors, DEFAULTS, Effective, Loaded, Preset, Sources, load};

use crate::ops::logging;
use crate::route::mapping::{Mapping, RuleSpec};

/// Room that a record needs beside the packet it came from (key, headers, framing), in bytes; generous.
pub const RECORD_OVERHEAD_BYTES: usize = 64 * 1024;

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[node] id`: this node's name, 1 to 200 characters of `A-Z a-z 0-9 . _ -`.
    pub node_id: String,
    /// `[listen]`.
    pub listen: Listen,
    /// `[ops]`.
    pub ops: Ops,
    /// `[auth]`.
    pub auth: Auth,
    /// `[journal]` and `[kafka]`.
    pub journal: JournalChoice,
    /// `[mapping]`.
    pub mapping: MappingConfig,
    /// `[topics]`.
    pub topics: Topics,
    /// `[limits]`.
    pub limits: Limits,
    /// `[log]`.
    pub log: logging::Options,
    /// `[shutdown]`.
    pub shutdown: Shutdown,
}

/// `[listen]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// MQTT over TCP; at least one.
    pub mqtt: Vec<SocketAddr>,
}

/// `[ops]`: the metrics and health port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ops {
    /// Where it listens.
    pub address: SocketAddr,
    /// How long Kafka may be silent before `/readyz` says no.
    #[serde(deserialize_with = "units::duration")]
    pub kafka_grace: Duration,
}

/// `[auth]`: who gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Clients without credentials get in, with full rights.
    pub anonymous: bool,
}

/// Which journal the node stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalChoice {
    /// In this process; forgotten when it ends.
    Memory,
    /// Kafka.
    Kafka(Kafka),
}

/// `[kafka]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// `host:port`, at least one.
    pub bootstrap: Vec<String>,
    /// Longest wait for one answer.
    #[serde(deserialize_with = "units::duration")]
    pub request_timeout: Duration,
    /// Longest time from an append being taken to its outcome.
    #[serde(deserialize_with = "units::duration")]
    pub append_deadline: Duration,
    /// Bytes of appends taken and not yet decided.
    #[serde(deserialize_with = "units::size")]
    pub append_budget_bytes: usize,
    /// Bytes at which a batch is sent, before compression; no record may be larger.
    #[serde(deserialize_with = "units::size")]
    pub batch_bytes_max: usize,
    /// Longest wait of an open batch while another is on its way.
    #[serde(deserialize_with = "units::duration")]
    pub linger_max: Duration,
    /// How long Kafka may hold an empty fetch.
    #[serde(deserialize_with = "units::duration")]
    pub fetch_wait: Duration,
    /// Most bytes in one fetch response.
    #[serde(deserialize_with = "units::size")]
    pub fetch_bytes_max: usize,
    /// Most bytes of one partition in one fetch response.
    #[serde(deserialize_with = "units::size")]
    pub fetch_partition_bytes_max: usize,
    /// How often the cluster's layout is asked for when nothing goes wrong.
    #[serde(deserialize_with = "units::duration")]
    pub metadata_refresh: Duration,
}

/// `[mapping]`: which MQTT topics live in which kafka topics.
#[derive(Clone, Debug)]
pub struct MappingConfig {
    /// The kafka topic of everything that no rule matches.
    pub default_topic: String,
    /// First match wins.
    pub rules: Vec<RuleSpec>,
    /// Both, compiled.
    pub compiled: Arc<Mapping>,
}

/// `[topics]`: the kafka topics that Millrace creates and checks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Whether the node creates missing kafka topics at start.
    pub create: bool,
    /// Copies.
    pub replication_factor: u16,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync_replicas: u16,
    /// The default kafka topic and those of the mapping.
    pub messages: MessageTopics,
    /// Retained messages.
    pub retained: StateTopic,
    /// Sessions.
    pub sessions: StateTopic,
    /// Nodes and kafka-topic numbers; one partition.
    pub cluster: ClusterTopic,
    /// Log cleaning of the three state topics.
    pub state: StateTuning,
}

/// `[topics.messages]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageTopics {
    /// Partitions of each.
    pub partitions: u32,
    /// How long messages are kept.
    #[serde(deserialize_with = "units::duration")]
    pub retention: Duration,
}

/// `[topics.retained]`, `[topics.sessions]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateTopic {
    /// The kafka topic.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
}

/// `[topics.cluster]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTopic {
    /// The kafka topic.
    pub name: String,
}

/// `[topics.state]`: Kafka's topic configs of the same names.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateTuning {
    /// `segment.bytes`.
    #[serde(deserialize_with = "units::size")]
    pub segment_bytes: usize,
    /// `segment.ms`.
    #[serde(deserialize_with = "units::duration")]
    pub segment_age: Duration,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    #[serde(deserialize_with = "units::duration")]
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`.
    #[serde(deserialize_with = "units::duration")]
    pub max_compaction_lag: Duration,
    /// `delete.retention.ms`.
    #[serde(deserialize_with = "units::duration")]
    pub delete_retention: Duration,
}

/// `[limits]`: what one client may cost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections of this node.
    pub connections_max: u32,
    /// Bytes of a CONNECT packet.
    #[serde(deserialize_with = "units::size")]
    pub connect_bytes_max: usize,
    /// Time until a whole CONNECT packet is there.
    #[serde(deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// Bytes of a client id.
    #[serde(deserialize_with = "units::size")]
    pub client_id_bytes_max: usize,
    /// Bytes of a whole packet from a client.
    #[serde(deserialize_with = "units::size")]
    pub packet_bytes_max: usize,
    /// Levels of a topic or filter.
    pub topic_levels_max: u16,
    /// Bytes of a topic or filter.
    #[serde(deserialize_with = "units::size")]
    pub topic_bytes_max: usize,
    /// User properties of one packet.
    pub user_properties_max: u16,
    /// QoS 1 and 2 packets in flight, each way.
    pub receive_maximum: u16,
    /// Topic aliases a client may use; 0 for none.
    pub topic_alias_maximum: u16,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// Longest keep-alive granted: 5 to 65,535 seconds.
    #[serde(deserialize_with = "units::duration")]
    pub keep_alive_max: Duration,
    /// Packets waiting for one client's socket.
    pub queue_packets_max: u32,
    /// Bytes waiting for one client's socket.
    #[serde(deserialize_with = "units::size")]
    pub queue_bytes_max: usize,
    /// Bytes of QoS 0 publishes, of all clients, that wait while the journal takes no more.
    #[serde(deserialize_with = "units::size")]
    pub qos0_buffer_bytes_max: usize,
    /// Time without progress on a client's socket until it is closed.
    #[serde(deserialize_with = "units::duration")]
    pub slow_timeout: Duration,
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// From SIGTERM until new connections are no longer taken.
    #[serde(deserialize_with = "units::duration")]
    pub accept_grace: Duration,
    /// Pace at which clients are disconnected, at least 1.
    pub disconnects_per_second: u32,
    /// Longest wait for appends on their way.
    #[serde(deserialize_with = "units::duration")]
    pub flush_timeout: Duration,
}

#[cfg(test)]
mod tests;
