//! The only place that knows Kafka's protocol.
//!
//! Per Kafka node there is one connection for appends, two per tail, one for questions and one for reads by offset. The
//! codec of the messages is the `kafka-protocol` crate's; everything around it is ours.

pub mod records;

mod admin;
mod appender;
mod connection;
mod fence;
mod link;
mod metadata;
mod options;
mod pool;
mod security;
mod stats;
mod tail;
mod wire;

pub use super::FenceForm;
pub use fence::FENCE_KEY;
pub use options::KafkaOptions;
pub use security::Security;
pub use stats::{JournalStats, PartitionView, TopicStats};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::TopicName;

use self::admin::Admin;
use self::appender::{Appender, AppenderParts};
use self::connection::Endpoint;
use self::metadata::{Cluster, Metadata, topic_name};
use self::tail::KafkaTail;
use super::{
    AckSink, Answer, Ends, Fenced, Fencing, Health, Isolation, Journal, JournalError, NotTaken, Offset, Partition,
    ReadAnswer, Tail, Ticket, TopicDescription, TopicIndex, TopicSpec,
};
use crate::clock;
use crate::message::RecordRef;

/// The log on Kafka.
pub struct KafkaJournal {
    metadata: Metadata,
    stats: Arc<JournalStats>,
    admin: Arc<Admin>,
    /// `None` when it was opened without kafka topics.
    appender: Option<Appender>,
    /// −1 without kafka topics.
    producer_id: i64,
}

impl KafkaJournal {
    /// Connects to Kafka. `topics` get the indexes of their order; all must exist. Without any, only
    /// [`Journal::describe`] and [`Journal::create`] are of use.
    ///
    /// # Errors
    /// Kafka could not be reached, or a kafka topic does not exist.
    pub async fn open(
        options: KafkaOptions,
        topics: Vec<String>,
        sink: Arc<dyn AckSink>,
    ) -> Result<Self, JournalError> {
        let options = Arc::new(options);
        check(&options, &topics)?;
        let names: Vec<TopicName> = topics.iter().map(|name| topic_name(name)).collect();
        let stats = Arc::new(JournalStats::new(&topics));
        let metadata = Metadata::start(Arc::clone(&options), names.clone(), stats.pulse());
        let admin = Arc::new(Admin::new(&options, &metadata, names.clone()));
        first_cluster(&options, &metadata, &topics).await?;
        let mut journal = Self { metadata, stats, admin, appender: None, producer_id: -1 };
        if !topics.is_empty() {
            let producer_id = journal.admin.new_producer_id().await?;
            let parts = AppenderParts {
                names,
                metadata: journal.metadata.clone(),
                producer_id,
                sink,
                stats: Arc::clone(&journal.stats),
            };
            journal.appender = Some(Appender::start(&options, parts));
            journal.producer_id = producer_id;
        }
        Ok(journal)
    }

    /// As [`Journal::fence`], but in this form only.
    pub async fn fence_as(
        &self,
        form: FenceForm,
        producer_id: i64,
        partitions: &[Partition],
        limit: Duration,
    ) -> Vec<Result<(), JournalError>> {
        self.admin.fence(&[form], producer_id, partitions, limit).await
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> &Arc<JournalStats> {
        &self.stats
    }
}

fn refused(doing: &str, why: impl Into<String>) -> JournalError {
    JournalError::Refused { doing: doing.to_owned(), why: why.into() }
}

fn check(options: &KafkaOptions, topics: &[String]) -> Result<(), JournalError> {
    if options.bootstrap.is_empty() {
        return Err(refused("the Kafka address", "no bootstrap address is given"));
    }
    if let Some(bad) = options.bootstrap.iter().find(|text| Endpoint::parse(text).is_none()) {
        return Err(refused("the Kafka address", format!("'{bad}' is not host:port")));
    }
    if topics.len() > usize::from(u16::MAX) {
        return Err(refused("the kafka topics", "there are too many"));
    }
    Ok(())
}

/// Waits until Kafka knows all kafka topics.
async fn first_cluster(options: &KafkaOptions, metadata: &Metadata, topics: &[String]) -> Result<(), JournalError> {
    let deadline = clock::now() + Duration::from_millis(options.open_timeout_ms);
    let mut version = 0;
    let mut missing = None;
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        let Some(cluster) = metadata.newer_than(version, left).await else { break };
        version = cluster.version;
        missing = first_missing(&cluster, topics);
        if missing.is_none() {
            return Ok(());
        }
        // A kafka topic created a moment ago is not known to every node at once.
        if version >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        metadata.refresh();
    }
    Err(match missing {
        Some(name) => refused("to open the journal", format!("the kafka topic '{name}' does not exist")),
        None => JournalError::Unavailable { doing: format!("connecting to {}", options.bootstrap.join(", ")) },
    })
}

fn first_missing(cluster: &Cluster, topics: &[String]) -> Option<String> {
    let known = cluster.topics.iter().map(|topic| topic.missing_since.is_none() && !topic.leaders.is_empty());
    topics.iter().zip(known).find(|(_, known)| !known).map(|(name, _)| name.clone())
}

impl Journal for KafkaJournal {
    fn partitions(&self, topic: TopicIndex) -> u32 {
        self.metadata.cluster().partitions(topic)
    }

    fn topic_id(&self, topic: TopicIndex) -> Option<u128> {
        let cluster = self.metadata.cluster();
        cluster.topic(topic).filter(|topic| !topic.id.is_nil()).map(|topic| topic.id.as_u128())
    }

    fn producer_id(&self) -> i64 {
        self.producer_id
    }

    fn fence<'a>(&'a self, producer_id: i64, partitions: &'a [Partition], limit: Duration) -> Fenced<'a> {
        Box::pin(async move {
            let forms = self.admin.likely_forms();
            self.admin.fence(&forms, producer_id, partitions, limit).await
        })
    }

    fn append(&self, ticket: Ticket, partition: Partition, record: &RecordRef<'_>) -> Result<(), NotTaken> {
        match &self.appender {
            Some(appender) => appender.append(ticket, partition, record),
            None => Err(NotTaken::NoSuchPartition),
        }
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Some(appender) = &self.appender {
                appender.room().await;
            }
        })
    }

    fn flush(&self, limit: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            match &self.appender {
                Some(appender) => appender.flush(limit).await,
                None => true,
            }
        })
    }

    fn tail(&self, isolation: Isolation) -> Box<dyn Tail> {
        Box::new(KafkaTail::new(Arc::clone(&self.admin), Arc::clone(&self.stats), isolation))
    }

    fn ends<'a>(&'a self, partitions: &'a [Partition]) -> Answer<'a, Vec<Ends>> {
        Box::pin(self.admin.ends(partitions))
    }

    fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Answer<'_, ReadAnswer> {
        Box::pin(self.admin.read(partition, from, bytes_max, isolation))
    }

    fn describe<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<TopicDescription>>> {
        Box::pin(self.admin.describe(names))
    }

    fn create<'a>(&'a self, specs: &'a [TopicSpec]) -> Answer<'a, ()> {
        Box::pin(self.admin.create(specs))
    }

    fn fencing<'a>(&'a self, names: &'a [String]) -> Answer<'a, Fencing> {
        Box::pin(self.admin.fencing(names))
    }

    fn health(&self) -> Health {
        let known = self.metadata.cluster().version > 0;
        Health {
            silent_for: known.then(|| self.stats.silent_for(clock::now())),
            pending_bytes: self.appender.as_ref().map_or(0, Appender::pending_bytes),
            fenced: self.appender.as_ref().is_some_and(Appender::is_fenced),
        }
    }
}
