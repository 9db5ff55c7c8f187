//! Layer 6: the kafka topics that Millrace needs, and whether the cluster has them so.
//!
//! [`wanted`] says what should be, as a pure function of the configuration; [`compare`] says what differs, each
//! difference with a sentence on what to do. `millrace topics plan|apply|check` and the start of a node are the same
//! steps: [`plan`], perhaps [`create_missing`], then look at [`Plan::is_fatal`].
//!
//! Invariant: nothing here changes or deletes a kafka topic that exists.

use std::fmt;
use std::time::Duration;

use crate::config::{Config, JournalChoice, RECORD_OVERHEAD_BYTES, StateTuning, Topics};
use crate::journal::{FenceForm, Fencing, Journal, JournalError, TopicDescription, TopicSpec};

/// What Kafka allows by default (`max.message.bytes`), in bytes.
const KAFKA_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What a kafka topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Messages of applications; other programs may own it.
    Messages,
    /// State of ours, compacted, with as many partitions as the operator likes, frozen at creation.
    State,
    /// `topics.cluster`: state with one partition.
    Cluster,
}

/// A kafka topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub role: Role,
    /// The configuration key that decides its number of partitions; empty for the one of the cluster.
    pub partitions_key: &'static str,
    /// What it should look like.
    pub spec: TopicSpec,
}

/// How bad a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, but not as configured.
    Warning,
    /// A node must not start on it.
    Fatal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        })
    }
}

/// One way in which the cluster differs from what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How bad it is.
    pub severity: Severity,
    /// What differs and what to do.
    pub sentence: String,
}

/// One kafka topic in a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it should look like.
    pub wanted: Wanted,
    /// Whether it exists.
    pub exists: bool,
    /// In what it differs; empty if it does not exist.
    pub differences: Vec<Difference>,
}

/// All kafka topics, as they should be and as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of [`wanted`].
    pub entries: Vec<Entry>,
}

/// Every kafka topic: those of the mapping, in the order of
/// [`Mapping::kafka_topics`](crate::route::mapping::Mapping::kafka_topics), then retained, sessions, cluster.
pub fn wanted(config: &Config) -> Vec<Wanted> {
    let topics = &config.topics;
    let spec = |name: &str, partitions, mut configs: Vec<(String, String)>| {
        configs.sort();
        TopicSpec { name: name.to_owned(), partitions, replication_factor: Some(topics.replication_factor), configs }
    };
    // Kafka's limit is on the batch, not on the record.
    let batch_bytes_max = match &config.journal {
        JournalChoice::Kafka(kafka) => kafka.batch_bytes_max,
        JournalChoice::Memory => config.limits.packet_bytes_max.saturating_add(RECORD_OVERHEAD_BYTES),
    };
    let messages = config.mapping.compiled.kafka_topics().iter().map(|name| Wanted {
        role: Role::Messages,
        partitions_key: "topics.messages.partitions",
        spec: spec(name, topics.messages.partitions, message_configs(topics, batch_bytes_max)),
    });
    let state = [(&topics.retained, "topics.retained.partitions"), (&topics.sessions, "topics.sessions.partitions")];
    let state = state.into_iter().map(|(topic, partitions_key)| Wanted {
        role: Role::State,
        partitions_key,
        spec: spec(&topic.name, topic.partitions, state_configs(topics)),
    });
    let cluster =
        Wanted { role: Role::Cluster, partitions_key: "", spec: spec(&topics.cluster.name, 1, state_configs(topics)) };
    messages.chain(state).chain([cluster]).collect()
}

fn message_configs(topics: &Topics, batch_bytes_max: usize) -> Vec<(String, String)> {
    let mut configs = common_configs(topics);
    configs.push(("cleanup.policy".to_owned(), "delete".to_owned()));
    configs.push(("retention.ms".to_owned(), ms(topics.messages.retention)));
    if batch_bytes_max > KAFKA_MESSAGE_BYTES_MAX {
        configs.push(("max.message.bytes".to_owned(), batch_bytes_max.to_string()));
    }
    configs
}

fn state_configs(topics: &Topics) -> Vec<(String, String)> {
    let StateTuning {
        segment_bytes,
        segment_age,
        min_cleanable_dirty_ratio,
        min_compaction_lag,
        max_compaction_lag,
        delete_retention,
    } = &topics.state;
    let mut configs = common_configs(topics);
    configs.extend(
        [
            ("cleanup.policy", "compact".to_owned()),
            ("delete.retention.ms", ms(*delete_retention)),
            ("max.compaction.lag.ms", ms(*max_compaction_lag)),
            // Evictions and positions compare append times: the clocks of nodes decide nothing.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("min.cleanable.dirty.ratio", min_cleanable_dirty_ratio.to_string()),
            ("min.compaction.lag.ms", ms(*min_compaction_lag)),
            ("segment.bytes", segment_bytes.to_string()),
            ("segment.ms", ms(*segment_age)),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    configs
}

fn common_configs(topics: &Topics) -> Vec<(String, String)> {
    vec![
        ("min.insync.replicas".to_owned(), topics.min_insync_replicas.to_string()),
        ("unclean.leader.election.enable".to_owned(), "false".to_owned()),
    ]
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// In what an existing kafka topic differs from what is wanted, worst first.
pub fn compare(wanted: &Wanted, found: &TopicDescription) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare_partitions(wanted, found, &mut differences);
    if let Some(copies) = wanted.spec.replication_factor.filter(|copies| *copies > found.replication_factor) {
        differences.push(warning(format!(
            "has {} copies, wanted are {copies}: reassign its partitions to more Kafka nodes, or lower \
             topics.replication_factor",
            found.replication_factor
        )));
    }
    for (key, value) in &wanted.spec.configs {
        let is = found.configs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        differences.extend(compare_config(wanted, key, value, is));
    }
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.severity));
    differences
}

fn compare_partitions(wanted: &Wanted, found: &TopicDescription, differences: &mut Vec<Difference>) {
    let (want, is) = (wanted.spec.partitions, found.partitions);
    if want == is {
        return;
    }
    let key = wanted.partitions_key;
    differences.push(match wanted.role {
        // The number on disk is the one that is used, so this only surprises.
        Role::Messages => warning(format!(
            "has {is} partitions, {key} is {want}: its own number is used; set {key} = {is}, or leave it so if \
             another program owns the kafka topic"
        )),
        Role::State => fatal(format!(
            "has {is} partitions, {key} is {want}: the number decides where each record lies and never changes; set \
             {key} = {is}"
        )),
        Role::Cluster => fatal(format!(
            "has {is} partitions, it must have 1, because its order decides: give topics.cluster.name another name, or \
             delete it if nothing else uses it"
        )),
    });
}

fn compare_config(wanted: &Wanted, key: &str, want: &str, is: Option<&str>) -> Option<Difference> {
    let name = &wanted.spec.name;
    let Some(is) = is else {
        return Some(warning(format!("Kafka does not say what {key} is; it should be {want}")));
    };
    if good_enough(key, want, is) {
        return None;
    }
    let alter = format!("kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {key}={want}");
    Some(match (key, wanted.role) {
        ("cleanup.policy", Role::State | Role::Cluster) => {
            fatal(format!("has {key}={is}: only compaction keeps the last record of every key; run {alter}"))
        }
        ("cleanup.policy", Role::Messages) => warning(format!(
            "has {key}={is}: compaction removes all but the last message of each key, so subscribers that are behind \
             miss messages; run {alter}, unless that is meant"
        )),
        _ => warning(format!("has {key}={is}, wanted is {want}: run {alter}")),
    })
}

/// Whether a config does what is wanted though it may say something else.
fn good_enough(key: &str, want: &str, is: &str) -> bool {
    let at_least = || match (want.parse::<i64>(), is.parse::<i64>()) {
        (Ok(want), Ok(is)) => is >= want,
        _ => false,
    };
    match key {
        "retention.ms" => is == "-1" || at_least(),
        "max.message.bytes" | "min.insync.replicas" => at_least(),
        "min.cleanable.dirty.ratio" => match (want.parse::<f64>(), is.parse::<f64>()) {
            (Ok(want), Ok(is)) => (want - is).abs() < 1e-9,
            _ => false,
        },
        _ => want == is,
    }
}

fn warning(sentence: String) -> Difference {
    Difference { severity: Severity::Warning, sentence }
}

fn fatal(sentence: String) -> Difference {
    Difference { severity: Severity::Fatal, sentence }
}

/// Asks the cluster and compares.
///
/// # Errors
/// The cluster's, as [`Journal::describe`] gives it.
pub async fn plan(journal: &dyn Journal, wanted: Vec<Wanted>) -> Result<Plan, JournalError> {
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.spec.name.clone()).collect();
    let mut found = journal.describe(&names).await?.into_iter();
    let entries = wanted
        .into_iter()
        .map(|wanted| {
            let found = found.next().flatten();
            let differences = found.as_ref().map(|found| compare(&wanted, found)).unwrap_or_default();
            Entry { wanted, exists: found.is_some(), differences }
        })
        .collect();
    Ok(Plan { entries })
}

/// How this node's user may fence dead nodes in the kafka topics of `plan` that exist.
///
/// # Errors
/// The cluster's, as [`Journal::fencing`] gives it.
pub async fn fences(journal: &dyn Journal, plan: &Plan) -> Result<Fences, JournalError> {
    let existing = plan.entries.iter().filter(|entry| entry.exists);
    let names: Vec<String> = existing.map(|entry| entry.wanted.spec.name.clone()).collect();
    Ok(Fences(journal.fencing(&names).await?))
}

/// Creates what is missing in `plan` and asks again.
///
/// # Errors
/// The cluster's, as [`Journal::create`] and [`Journal::describe`] give it.
pub async fn create_missing(journal: &dyn Journal, plan: Plan) -> Result<Plan, JournalError> {
    let missing: Vec<TopicSpec> = plan.missing().map(|wanted| wanted.spec.clone()).collect();
    if missing.is_empty() {
        return Ok(plan);
    }
    journal.create(&missing).await?;
    self::plan(journal, plan.entries.into_iter().map(|entry| entry.wanted).collect()).await
}

/// What a node does at its start: plan, create what is missing if `topics.create` says so, and log every warning. Do not
/// start if the plan [is fatal](Plan::is_fatal).
///
/// # Errors
/// The cluster's, as [`Journal::create`] and [`Journal::describe`] give it.
pub async fn prepare(journal: &dyn Journal, config: &Config) -> Result<Plan, JournalError> {
    let mut plan = plan(journal, wanted(config)).await?;
    if config.topics.create {
        plan = create_missing(journal, plan).await?;
    }
    for entry in &plan.entries {
        for difference in entry.differences.iter().filter(|difference| difference.severity == Severity::Warning) {
            tracing::warn!(kafka_topic = entry.wanted.spec.name, "{}", difference.sentence);
        }
    }
    Ok(plan)
}

impl Plan {
    /// The kafka topics that do not exist.
    pub fn missing(&self) -> impl Iterator<Item = &Wanted> {
        self.entries.iter().filter(|entry| !entry.exists).map(|entry| &entry.wanted)
    }

    /// Whether a node must not start: something is missing or fatally different.
    pub fn is_fatal(&self) -> bool {
        let fatal = |entry: &Entry| entry.differences.iter().any(|difference| difference.severity == Severity::Fatal);
        self.entries.iter().any(|entry| !entry.exists || fatal(entry))
    }
}

/// One kafka topic a line, its differences indented below it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { wanted, exists, differences } in &self.entries {
            let TopicSpec { name, partitions, replication_factor, configs } = &wanted.spec;
            if *exists {
                let state = if differences.is_empty() { "as wanted" } else { "differs" };
                writeln!(f, "  {name}: {state}")?;
            } else {
                let copies = replication_factor.map(|copies| format!(", {copies} copies")).unwrap_or_default();
                writeln!(f, "+ {name}: does not exist; wanted with {partitions} partitions{copies}")?;
                for (key, value) in configs {
                    writeln!(f, "      {key}={value}")?;
                }
            }
            for Difference { severity, sentence } in differences {
                writeln!(f, "    {severity}: {sentence}")?;
            }
        }
        Ok(())
    }
}

/// How nodes may stop what a dead node left on its way to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fences(pub Fencing);

/// One line, what to do about it indented below.
impl fmt::Display for Fences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.form {
            Some(FenceForm::Marker) => writeln!(f, "  fences: markers, which nobody sees"),
            Some(FenceForm::Record) => {
                writeln!(f, "  fences: records with the header mqtt-fence, which Kafka programs have to skip")?;
                writeln!(
                    f,
                    "    for markers, allow ClusterAction: kafka-acls.sh --add --cluster --operation ClusterAction"
                )
            }
            None => {
                writeln!(f, "  fences: none")?;
                for name in &self.0.not_allowed {
                    writeln!(
                        f,
                        "    {}: a dead node's late writes to {name} cannot be stopped, so QoS 2 messages and wills may \
                         come twice when a node dies: allow Write there (kafka-acls.sh --add --topic {name} --operation \
                         Write) or ClusterAction on the cluster",
                        Severity::Warning
                    )?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
