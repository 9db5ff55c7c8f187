//! The merged values → [`Config`]: ranges, and what must hold between keys.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{
    Auth, Config, JournalChoice, Kafka, Limits, Listen, MappingConfig, Ops, RECORD_OVERHEAD_BYTES, Shutdown,
    StateTuning, Topics,
};
use crate::ops::logging;
use crate::route::mapping::{Mapping, RuleSpec};

/// Kafka's own limit on the length of a kafka topic's name, in bytes.
const KAFKA_TOPIC_BYTES_MAX: usize = 249;

/// The merged values before the last checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    node: RawNode,
    listen: Listen,
    ops: Ops,
    auth: Auth,
    journal: RawJournal,
    kafka: Kafka,
    mapping: RawMapping,
    topics: Topics,
    limits: Limits,
    log: RawLog,
    shutdown: Shutdown,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJournal {
    kind: JournalKind,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JournalKind {
    Memory,
    Kafka,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMapping {
    default_topic: String,
    rules: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    filter: String,
    kafka_topic: String,
    key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: String,
    format: String,
}

/// What is wrong so far: (key, sentence).
type Wrong = Vec<(String, String)>;

/// Parses the merged values.
///
/// # Errors
/// Every key that is wrong, with a sentence.
pub(super) fn config(raw: RawConfig) -> Result<Config, Wrong> {
    let mut wrong = Wrong::new();
    let node_id = node_id(&raw.node.id, &mut wrong);
    let log = log(&raw.log, &mut wrong);
    let mapping = mapping(raw.mapping, &mut wrong);
    check_listen(&raw.listen, raw.auth, &mut wrong);
    check_limits(&raw.limits, &mut wrong);
    check_topics(&raw.topics, mapping.as_ref(), &mut wrong);
    check_shutdown(&raw.shutdown, &mut wrong);
    let journal = match raw.journal.kind {
        JournalKind::Memory => JournalChoice::Memory,
        JournalKind::Kafka => {
            check_kafka(&raw.kafka, &raw.limits, &mut wrong);
            JournalChoice::Kafka(raw.kafka)
        }
    };
    match (node_id, log, mapping) {
        (Some(node_id), Some(log), Some(mapping)) if wrong.is_empty() => Ok(Config {
            node_id,
            listen: raw.listen,
            ops: raw.ops,
            auth: raw.auth,
            journal,
            mapping,
            topics: raw.topics,
            limits: raw.limits,
            log,
            shutdown: raw.shutdown,
        }),
        _ => Err(wrong),
    }
}

fn refuse(wrong: &mut Wrong, key: &str, what: impl Into<String>) {
    wrong.push((key.to_owned(), what.into()));
}

/// The configured name, or the host's.
fn node_id(text: &str, wrong: &mut Wrong) -> Option<String> {
    let id = if text.is_empty() { host_name() } else { text.to_owned() };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=200).contains(&id.len()) && id.chars().all(legal) {
        return Some(id);
    }
    refuse(wrong, "node.id", format!("{id:?} is not a name of 1 to 200 characters of A-Z a-z 0-9 . _ -"));
    None
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "millrace".to_owned() } else { name.to_owned() }
}

fn log(raw: &RawLog, wrong: &mut Wrong) -> Option<logging::Options> {
    let format = raw.format.parse().map_err(|what| refuse(wrong, "log.format", what)).ok();
    let filter = logging::Filter::parse(&raw.level).map_err(|what| refuse(wrong, "log.level", what)).ok();
    Some(logging::Options { filter: filter?, format: format? })
}

fn mapping(raw: RawMapping, wrong: &mut Wrong) -> Option<MappingConfig> {
    let RawMapping { default_topic, rules } = raw;
    let rules: Vec<RuleSpec> = rules
        .into_iter()
        .map(|rule| RuleSpec { filter: rule.filter, kafka_topic: rule.kafka_topic, key: rule.key })
        .collect();
    check_topic_name("mapping.default_topic", &default_topic, wrong);
    for (index, rule) in rules.iter().enumerate() {
        check_topic_name(&format!("mapping.rules.{index}.kafka_topic"), &rule.kafka_topic, wrong);
    }
    match Mapping::new(&rules, &default_topic) {
        Ok(compiled) => Some(MappingConfig { default_topic, rules, compiled: Arc::new(compiled) }),
        Err(error) => {
            let key = match error.rule.checked_sub(1) {
                Some(index) => format!("mapping.rules.{index}"),
                None => "mapping.default_topic".to_owned(),
            };
            refuse(wrong, &key, error.what);
            None
        }
    }
}

fn check_listen(listen: &Listen, auth: Auth, wrong: &mut Wrong) {
    if listen.mqtt.is_empty() {
        refuse(wrong, "listen.mqtt", "at least one address is needed");
    }
    if auth.anonymous {
        return;
    }
    for (index, address) in listen.mqtt.iter().enumerate().filter(|(_, address)| !address.ip().is_loopback()) {
        let what = format!(
            "{address} can be reached from other machines, and this release cannot ask clients for credentials: \
             set auth.anonymous = true if everybody on that network may publish and subscribe"
        );
        refuse(wrong, &format!("listen.mqtt.{index}"), what);
    }
}

/// Refuses a number outside `low..=high`.
fn check_range<N: Copy + PartialOrd + std::fmt::Display>(key: &str, value: N, low: N, high: N, wrong: &mut Wrong) {
    if value < low || value > high {
        refuse(wrong, key, format!("{value} is out of range: {low} to {high}"));
    }
}

/// Refuses a duration that Kafka or a timer would not understand as meant.
fn check_at_least(key: &str, value: Duration, low: Duration, wrong: &mut Wrong) {
    if value < low {
        refuse(wrong, key, format!("{value:?} is too short: at least {low:?}"));
    }
}

fn check_limits(limits: &Limits, wrong: &mut Wrong) {
    const MIB: usize = 1024 * 1024;
    check_range("limits.connections_max", limits.connections_max, 1, 10_000_000, wrong);
    check_range("limits.packet_bytes_max", limits.packet_bytes_max, 1_024, 256 * MIB, wrong);
    check_range("limits.connect_bytes_max", limits.connect_bytes_max, 128, limits.packet_bytes_max, wrong);
    check_at_least("limits.connect_timeout", limits.connect_timeout, Duration::from_millis(100), wrong);
    // A server must take ids of 1 to 23 bytes [MQTT-3.1.3-5].
    check_range("limits.client_id_bytes_max", limits.client_id_bytes_max, 23, 65_535, wrong);
    check_range("limits.topic_levels_max", limits.topic_levels_max, 1, 65_535, wrong);
    check_range("limits.topic_bytes_max", limits.topic_bytes_max, 1, 65_535, wrong);
    // MQTT5 §3.1.2.11.3: a Receive Maximum of 0 is a protocol error.
    check_range("limits.receive_maximum", limits.receive_maximum, 1, 65_535, wrong);
    check_range("limits.subscriptions_max", limits.subscriptions_max, 1, 100_000, wrong);
    let keep_alive_s = limits.keep_alive_max.as_secs();
    if !(5..=u64::from(u16::MAX)).contains(&keep_alive_s) {
        refuse(wrong, "limits.keep_alive_max", format!("{keep_alive_s} s is out of range: 5 s to 65535 s"));
    }
    check_range("limits.queue_packets_max", limits.queue_packets_max, 1, 1_000_000, wrong);
    check_at_least("limits.slow_timeout", limits.slow_timeout, Duration::from_secs(1), wrong);
    if limits.queue_bytes_max < limits.packet_bytes_max {
        let what = format!(
            "{} bytes cannot hold one packet of limits.packet_bytes_max ({} bytes)",
            limits.queue_bytes_max, limits.packet_bytes_max
        );
        refuse(wrong, "limits.queue_bytes_max", what);
    }
}

fn check_kafka(kafka: &Kafka, limits: &Limits, wrong: &mut Wrong) {
    if kafka.bootstrap.is_empty() {
        refuse(wrong, "kafka.bootstrap", "at least one host:port is needed");
    }
    for (index, address) in kafka.bootstrap.iter().enumerate() {
        let port =
            address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
        if port.is_none_or(|port: u16| port == 0) {
            refuse(wrong, &format!("kafka.bootstrap.{index}"), format!("{address:?} is not host:port"));
        }
    }
    check_at_least("kafka.request_timeout", kafka.request_timeout, Duration::from_millis(100), wrong);
    check_at_least("kafka.append_deadline", kafka.append_deadline, kafka.request_timeout, wrong);
    check_at_least("kafka.metadata_refresh", kafka.metadata_refresh, Duration::from_secs(1), wrong);
    if kafka.fetch_wait >= kafka.request_timeout {
        let what = format!("{:?} must be shorter than kafka.request_timeout", kafka.fetch_wait);
        refuse(wrong, "kafka.fetch_wait", what);
    }
    let record_bytes_max = limits.packet_bytes_max.saturating_add(RECORD_OVERHEAD_BYTES);
    if kafka.batch_bytes_max < record_bytes_max {
        let what = format!(
            "{} bytes cannot hold the record of one packet: at least limits.packet_bytes_max and {} bytes more",
            kafka.batch_bytes_max, RECORD_OVERHEAD_BYTES
        );
        refuse(wrong, "kafka.batch_bytes_max", what);
    }
    check_range("kafka.append_budget_bytes", kafka.append_budget_bytes, kafka.batch_bytes_max, usize::MAX, wrong);
    check_range("kafka.batch_bytes_max", kafka.batch_bytes_max, 0, i32_max(), wrong);
    check_range("kafka.fetch_partition_bytes_max", kafka.fetch_partition_bytes_max, 1_024, i32_max(), wrong);
    check_range("kafka.fetch_bytes_max", kafka.fetch_bytes_max, kafka.fetch_partition_bytes_max, i32_max(), wrong);
}

/// Sizes in Kafka's protocol are `i32`.
fn i32_max() -> usize {
    usize::try_from(i32::MAX).unwrap_or(usize::MAX)
}

fn check_topics(topics: &Topics, mapping: Option<&MappingConfig>, wrong: &mut Wrong) {
    check_range("topics.replication_factor", topics.replication_factor, 1, 32_767, wrong);
    check_range("topics.min_insync_replicas", topics.min_insync_replicas, 1, topics.replication_factor, wrong);
    check_range("topics.messages.partitions", topics.messages.partitions, 1, 10_000, wrong);
    check_range("topics.retained.partitions", topics.retained.partitions, 1, 10_000, wrong);
    check_range("topics.sessions.partitions", topics.sessions.partitions, 1, 10_000, wrong);
    check_at_least("topics.messages.retention", topics.messages.retention, Duration::from_mins(1), wrong);
    check_state_tuning(&topics.state, wrong);
    let state = [
        ("topics.retained.name", &topics.retained.name),
        ("topics.sessions.name", &topics.sessions.name),
        ("topics.cluster.name", &topics.cluster.name),
    ];
    for (index, (key, name)) in state.iter().enumerate() {
        check_topic_name(key, name, wrong);
        if state.iter().take(index).any(|(_, other)| other == name) {
            refuse(wrong, key, format!("the kafka topic {name:?} is already used by another [topics] key"));
        }
        if mapping.is_some_and(|mapping| mapping.compiled.kafka_topics().contains(name)) {
            refuse(wrong, key, format!("the mapping sends messages to {name:?}; state needs a kafka topic of its own"));
        }
    }
}

fn check_state_tuning(state: &StateTuning, wrong: &mut Wrong) {
    check_range("topics.state.min_cleanable_dirty_ratio", state.min_cleanable_dirty_ratio, 0.0, 1.0, wrong);
    check_range("topics.state.segment_bytes", state.segment_bytes, 1024 * 1024, i32_max(), wrong);
    check_at_least("topics.state.segment_age", state.segment_age, Duration::from_secs(1), wrong);
    check_at_least("topics.state.max_compaction_lag", state.max_compaction_lag, state.min_compaction_lag, wrong);
    // A node that replays must see every tombstone that was written while it read.
    check_at_least("topics.state.delete_retention", state.delete_retention, Duration::from_mins(5), wrong);
}

/// Kafka's rules for names of kafka topics.
fn check_topic_name(key: &str, name: &str, wrong: &mut Wrong) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good =
        (1..=KAFKA_TOPIC_BYTES_MAX).contains(&name.len()) && name.chars().all(legal) && !matches!(name, "." | "..");
    if !good {
        let what =
            format!("{name:?} is not a kafka topic: 1 to {KAFKA_TOPIC_BYTES_MAX} characters of A-Z a-z 0-9 . _ -");
        refuse(wrong, key, what);
    }
}

fn check_shutdown(shutdown: &Shutdown, wrong: &mut Wrong) {
    check_range("shutdown.disconnects_per_second", shutdown.disconnects_per_second, 1, 1_000_000, wrong);
}
