//! Who leads which partition: asked for again at every sign that it is out of date, from any node that answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::connection::{Connection, Endpoint};
use super::options::KafkaOptions;
use super::stats::Pulse;
use super::wire::code;
use crate::clock;
use crate::journal::{Partition, TopicIndex};

/// However many ask for it, the cluster is not asked more often.
const PAUSE_BETWEEN: Duration = Duration::from_millis(100);
/// After all known nodes failed.
const PAUSE_AFTER_ROUND: Duration = Duration::from_millis(250);

/// The cluster as last seen; never empty again once it was known.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Counts the answers.
    pub version: u64,
    /// By node id.
    pub nodes: BTreeMap<i32, Endpoint>,
    /// The node that takes topic creations.
    pub controller: Option<i32>,
    /// In the order of [`TopicIndex`].
    pub topics: Vec<TopicState>,
}

/// One kafka topic.
#[derive(Clone, Debug, Default)]
pub struct TopicState {
    /// Nil until it is known.
    pub id: Uuid,
    /// By partition number. Kept when the cluster momentarily does not know the topic.
    pub leaders: Vec<Leader>,
    /// Since when the cluster has not known it.
    pub missing_since: Option<Instant>,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// `None` during an election.
    pub node: Option<i32>,
    /// −1 if it is not known.
    pub epoch: i32,
}

impl Cluster {
    /// The kafka topic.
    pub fn topic(&self, topic: TopicIndex) -> Option<&TopicState> {
        self.topics.get(usize::from(topic.0))
    }

    /// The partition's leader; `None` for a partition that does not exist.
    pub fn leader(&self, partition: Partition) -> Option<Leader> {
        self.topic(partition.topic)?.leaders.get(partition.number as usize).copied()
    }

    /// Number of partitions.
    pub fn partitions(&self, topic: TopicIndex) -> u32 {
        self.topic(topic).map_or(0, |topic| u32::try_from(topic.leaders.len()).unwrap_or(u32::MAX))
    }

    /// The cluster after `answer`. What the answer does not know for the moment is kept.
    pub fn after(&self, answer: &MetadataResponse, names: &[TopicName], now: Instant) -> Self {
        let nodes: BTreeMap<i32, Endpoint> = answer
            .brokers
            .iter()
            .filter_map(|node| {
                let port = u16::try_from(node.port).ok()?;
                Some((*node.node_id, Endpoint { host: node.host.to_string(), port }))
            })
            .collect();
        let topics = names.iter().enumerate().map(|(index, name)| {
            let before = self.topics.get(index).cloned().unwrap_or_default();
            let now_known = answer.topics.iter().find(|topic| topic.name.as_ref() == Some(name));
            topic_after(before, now_known, now)
        });
        Self {
            version: self.version + 1,
            nodes: if nodes.is_empty() { self.nodes.clone() } else { nodes },
            controller: Some(*answer.controller_id).filter(|&id| id >= 0),
            topics: topics.collect(),
        }
    }
}

fn topic_after(before: TopicState, answer: Option<&MetadataResponseTopic>, now: Instant) -> TopicState {
    let missing = TopicState { missing_since: before.missing_since.or(Some(now)), ..before.clone() };
    let Some(answer) = answer else { return missing };
    match answer.error_code {
        code::NONE => {}
        code::UNKNOWN_TOPIC_OR_PARTITION | code::UNKNOWN_TOPIC_ID => return missing,
        // Of no use, but not gone either.
        _ => return before,
    }
    let same = before.id == answer.topic_id;
    let mut leaders = if same { before.leaders } else { Vec::new() };
    for partition in &answer.partitions {
        let Ok(number) = usize::try_from(partition.partition_index) else { continue };
        if leaders.len() <= number {
            leaders.resize(number + 1, Leader { node: None, epoch: -1 });
        }
        let leader = Leader { node: Some(*partition.leader_id).filter(|&id| id >= 0), epoch: partition.leader_epoch };
        if let Some(known) = leaders.get_mut(number)
            // A node that lags behind tells of a leader that was.
            && leader.epoch >= known.epoch
        {
            *known = leader;
        }
    }
    TopicState { id: answer.topic_id, leaders, missing_since: None }
}

/// Everybody's view of the cluster.
#[derive(Clone, Debug)]
pub struct Metadata {
    cluster: watch::Receiver<Arc<Cluster>>,
    refresh: Arc<Notify>,
}

impl Metadata {
    /// Starts asking. The first answer is awaited by [`Metadata::first`].
    pub fn start(options: Arc<KafkaOptions>, names: Vec<TopicName>, pulse: Arc<Pulse>) -> Self {
        let (sender, cluster) = watch::channel(Arc::new(Cluster::default()));
        let refresh = Arc::new(Notify::new());
        let asker = Asker { options, names, pulse, sender, refresh: Arc::clone(&refresh), connection: None, turn: 0 };
        crate::ops::tasks::spawn("kafka metadata", asker.run());
        Self { cluster, refresh }
    }

    /// The cluster as last seen.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.borrow())
    }

    /// To be woken at changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Cluster>> {
        self.cluster.clone()
    }

    /// What is known seems to be out of date.
    pub fn refresh(&self) {
        self.refresh.notify_one();
    }

    /// Waits for an answer newer than `version`; `None` if none comes within `limit`.
    pub async fn newer_than(&self, version: u64, limit: Duration) -> Option<Arc<Cluster>> {
        let mut cluster = self.cluster.clone();
        let newer = timeout(limit, cluster.wait_for(|cluster| cluster.version > version)).await.ok()?.ok()?;
        Some(Arc::clone(&newer))
    }
}

struct Asker {
    options: Arc<KafkaOptions>,
    names: Vec<TopicName>,
    pulse: Arc<Pulse>,
    sender: watch::Sender<Arc<Cluster>>,
    refresh: Arc<Notify>,
    connection: Option<Connection>,
    /// Whose turn it is when a node has to be chosen.
    turn: usize,
}

impl Asker {
    async fn run(mut self) {
        let regularly = Duration::from_millis(self.options.metadata_refresh_ms);
        loop {
            self.ask_until_answered().await;
            tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = sleep(PAUSE_BETWEEN) => {}
            }
            tokio::select! {
                biased;
                () = self.sender.closed() => return,
                () = self.refresh.notified() => {}
                () = sleep(regularly) => {}
            }
        }
    }

    async fn ask_until_answered(&mut self) {
        let mut failed = 0;
        while !self.sender.is_closed() {
            match self.ask().await {
                Ok(answer) => {
                    let cluster = self.sender.borrow().after(&answer, &self.names, clock::now());
                    self.sender.send_replace(Arc::new(cluster));
                    return;
                }
                Err(error) => {
                    tracing::warn!(error, "a Kafka node did not tell about the cluster");
                    self.pulse.owe();
                    self.connection = None;
                    failed += 1;
                    if failed % self.candidates().len().max(1) == 0 {
                        sleep(PAUSE_AFTER_ROUND).await;
                    }
                }
            }
        }
    }

    /// The nodes last known, then the bootstrap list.
    fn candidates(&self) -> Vec<Endpoint> {
        let mut candidates: Vec<Endpoint> = self.sender.borrow().nodes.values().cloned().collect();
        for endpoint in self.options.bootstrap.iter().filter_map(|text| Endpoint::parse(text)) {
            if !candidates.contains(&endpoint) {
                candidates.push(endpoint);
            }
        }
        candidates
    }

    async fn ask(&mut self) -> Result<MetadataResponse, String> {
        let connection = match &self.connection {
            Some(connection) if !connection.is_closed() => connection.clone(),
            Some(_) | None => {
                let candidates = self.candidates();
                self.turn = self.turn.wrapping_add(1);
                let endpoint = candidates.get(self.turn % candidates.len().max(1)).ok_or("no bootstrap address")?;
                Connection::open(endpoint, &self.options, Arc::clone(&self.pulse)).await.map_err(|e| e.to_string())?
            }
        };
        let answer = ask(&connection, &self.names).await?;
        self.connection = Some(connection);
        if answer.brokers.is_empty() {
            return Err("it knows of no node".to_owned());
        }
        Ok(answer)
    }
}

/// Asks one node for these kafka topics, and for the nodes.
///
/// # Errors
/// In words.
pub async fn ask(connection: &Connection, names: &[TopicName]) -> Result<MetadataResponse, String> {
    let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(name.clone())));
    let request = MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false);
    let answer = connection.call(&request, Duration::ZERO).await.map_err(|error| error.to_string())?;
    connection.hold_back(answer.throttle_time_ms);
    Ok(answer)
}

/// What this client's user may do to these kafka topics, as Kafka's bits; those that do not exist, or of which the node
/// does not tell, are left out.
///
/// # Errors
/// In words.
pub async fn ask_operations(connection: &Connection, names: &[TopicName]) -> Result<BTreeMap<String, i32>, String> {
    let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(name.clone())));
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false)
        .with_include_topic_authorized_operations(true);
    let answer = connection.call(&request, Duration::ZERO).await.map_err(|error| error.to_string())?;
    connection.hold_back(answer.throttle_time_ms);
    let known = answer.topics.into_iter().filter(|topic| topic.error_code == code::NONE);
    let told = known.filter(|topic| topic.topic_authorized_operations != i32::MIN);
    Ok(told.filter_map(|topic| Some((topic.name?.to_string(), topic.topic_authorized_operations))).collect())
}

/// `name` as the codec wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests;
