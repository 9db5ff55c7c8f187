//! Questions: where partitions end, records by offset, which kafka topics there are and how they are configured.

mod topics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, InitProducerIdRequest, ListOffsetsRequest, TopicName};
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::metadata::{Cluster, Metadata};
use super::options::KafkaOptions;
use super::pool::Pool;
use super::tail::{self, Asking, Packed, Wanted};
use super::wire::{self, Call, code};
use crate::journal::{Ends, FenceForm, Isolation, JournalError, Offset, Partition, ReadAnswer, TopicIndex};

/// How long a question is asked again and again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Why an attempt failed.
#[derive(Clone)]
pub(super) enum Failure {
    /// Asking again may help.
    Passing(String),
    /// It will not.
    Final(String),
}

impl Failure {
    pub(super) fn of(code: i16) -> Self {
        match code {
            code::TOPIC_AUTHORIZATION_FAILED
            | code::CLUSTER_AUTHORIZATION_FAILED
            | code::OFFSET_OUT_OF_RANGE
            | code::UNSUPPORTED_VERSION => Self::Final(wire::words(code)),
            _ => Self::Passing(wire::words(code)),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Passing(error.to_string())
    }
}

/// See the module.
pub struct Admin {
    pub(super) options: Arc<KafkaOptions>,
    pub(super) metadata: Metadata,
    pub(super) names: Vec<TopicName>,
    /// For short questions.
    pub(super) control: Pool,
    /// For records: they may be large, and nobody should wait behind them.
    reading: Pool,
    /// What the last fence worked with.
    pub(super) fence_form: Mutex<Option<FenceForm>>,
}

impl Admin {
    /// Without connections.
    pub fn new(options: &Arc<KafkaOptions>, metadata: &Metadata, names: Vec<TopicName>) -> Self {
        let pool = || Pool::new(Arc::clone(options), metadata.clone());
        let (control, reading) = (pool(), pool());
        Self {
            options: Arc::clone(options),
            metadata: metadata.clone(),
            names,
            control,
            reading,
            fence_form: Mutex::default(),
        }
    }

    /// Repeats `attempt` until it succeeds, fails for good or takes too long.
    pub(super) async fn persist<T, F>(&self, doing: &str, mut attempt: impl FnMut() -> F) -> Result<T, JournalError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let attempts = async {
            loop {
                match attempt().await {
                    Ok(value) => return Ok(value),
                    Err(Failure::Final(why)) => return Err(why),
                    Err(Failure::Passing(why)) => {
                        tracing::debug!(doing, why, "to be asked again");
                        let version = self.metadata.cluster().version;
                        self.metadata.refresh();
                        self.metadata.newer_than(version, PAUSE * 2).await;
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        match timeout(ANSWER_TIMEOUT, attempts).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(why)) => Err(JournalError::Refused { doing: doing.to_owned(), why }),
            Err(_) => Err(JournalError::Unavailable { doing: doing.to_owned() }),
        }
    }

    /// A new producer id.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn new_producer_id(&self) -> Result<i64, JournalError> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let attempt = async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            let answer = connection.call(&request, Duration::ZERO).await?;
            match answer.error_code {
                code::NONE => Ok(*answer.producer_id),
                error => Err(Failure::of(error)),
            }
        };
        self.persist("a producer id", attempt).await
    }

    pub(super) fn name(&self, partition: Partition) -> Option<&TopicName> {
        self.names.get(usize::from(partition.topic.0))
    }

    /// Both ends of each partition.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn ends(self: &Arc<Self>, partitions: &[Partition]) -> Result<Vec<Ends>, JournalError> {
        self.persist("the ends of partitions", async || {
            let mut asked = Vec::new();
            for (node, partitions) in by_leader(&self.metadata.cluster(), partitions)? {
                let admin = Arc::clone(self);
                let task = async move { admin.ends_at(node, &partitions).await };
                asked.push(crate::ops::tasks::spawn("kafka ends", task));
            }
            let mut known = BTreeMap::new();
            for task in asked {
                known.extend(task.await??);
            }
            let ends = partitions.iter().map(|partition| known.get(partition).copied());
            ends.collect::<Option<Vec<Ends>>>().ok_or_else(|| Failure::Passing("an answer is incomplete".to_owned()))
        })
        .await
    }

    /// The starts are asked for first and the high watermarks last: so none of them contradicts another.
    async fn ends_at(&self, node: i32, partitions: &[Partition]) -> Result<Vec<(Partition, Ends)>, Failure> {
        let connection = self.control.to(node).await.map_err(Failure::Passing)?;
        let cluster = self.metadata.cluster();
        let starts = self.offsets_request(&cluster, partitions, EARLIEST, Isolation::ReadUncommitted);
        let stable = self.offsets_request(&cluster, partitions, LATEST, Isolation::ReadCommitted);
        let latest = self.offsets_request(&cluster, partitions, LATEST, Isolation::ReadUncommitted);
        let (starts, stable, latest) = tokio::join!(
            self.offsets(&connection, &starts),
            self.offsets(&connection, &stable),
            self.offsets(&connection, &latest),
        );
        let (starts, stable, latest) = (starts?, stable?, latest?);
        let ends = partitions.iter().filter_map(|partition| {
            let of = |offsets: &BTreeMap<Partition, Offset>| offsets.get(partition).copied();
            let (log_start, last_stable, high_watermark) = (of(&starts)?, of(&stable)?, of(&latest)?);
            Some((*partition, Ends { log_start, last_stable, high_watermark }))
        });
        Ok(ends.collect())
    }

    fn offsets_request(
        &self,
        cluster: &Cluster,
        partitions: &[Partition],
        timestamp: i64,
        isolation: Isolation,
    ) -> ListOffsetsRequest {
        let mut topics: BTreeMap<TopicIndex, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for partition in partitions {
            let epoch = cluster.leader(*partition).map_or(-1, |leader| leader.epoch);
            topics.entry(partition.topic).or_default().push(
                ListOffsetsPartition::default()
                    .with_partition_index(i32::try_from(partition.number).unwrap_or(i32::MAX))
                    .with_current_leader_epoch(epoch)
                    .with_timestamp(timestamp),
            );
        }
        let topics = topics.into_iter().filter_map(|(topic, partitions)| {
            let name = self.names.get(usize::from(topic.0))?.clone();
            Some(ListOffsetsTopic::default().with_name(name).with_partitions(partitions))
        });
        ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(match isolation {
                Isolation::ReadUncommitted => 0,
                Isolation::ReadCommitted => 1,
            })
            .with_topics(topics.collect())
    }

    async fn offsets(
        &self,
        connection: &Connection,
        request: &ListOffsetsRequest,
    ) -> Result<BTreeMap<Partition, Offset>, Failure> {
        let answer = connection.call(request, Duration::ZERO).await?;
        connection.hold_back(answer.throttle_time_ms);
        let mut offsets = BTreeMap::new();
        for topic in answer.topics {
            let Some(index) = self.names.iter().position(|name| *name == topic.name) else { continue };
            let index = TopicIndex(u16::try_from(index)?);
            for part in topic.partitions {
                if part.error_code != code::NONE {
                    return Err(Failure::of(part.error_code));
                }
                let partition = Partition { topic: index, number: u32::try_from(part.partition_index)? };
                offsets.insert(partition, Offset(part.offset));
            }
        }
        Ok(offsets)
    }

    /// Records from `from` on: see [`crate::journal::Journal::read`].
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<ReadAnswer, JournalError> {
        let name = self.name(partition).map_or("?", |name| name.as_str());
        let doing = format!("to read {name}/{} at {}", partition.number, from.0);
        self.persist(&doing, || self.read_once(partition, from, bytes_max, isolation)).await
    }

    async fn read_once(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<ReadAnswer, Failure> {
        let cluster = self.metadata.cluster();
        let leader =
            cluster.leader(partition).ok_or_else(|| Failure::Final("there is no such partition".to_owned()))?;
        let node = leader.node.ok_or_else(|| Failure::Passing("it has no leader".to_owned()))?;
        let connection = self.reading.to(node).await.map_err(Failure::Passing)?;
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).clamp(1, i32::MAX.cast_unsigned());
        let asking =
            Asking { names: self.names.clone(), isolation, wait_ms: 0, bytes_max, partition_bytes_max: bytes_max };
        let wanted = Wanted {
            topic_id: cluster.topic(partition.topic).map(|topic| topic.id).unwrap_or_default(),
            offset: from.0,
            leader_epoch: leader.epoch,
            last_epoch: -1,
        };
        let request: FetchRequest = tail::sessionless(&asking, &BTreeMap::from([(partition, wanted)]));
        let answer = connection.call(&request, Duration::ZERO).await?;
        connection.hold_back(answer.throttle_time_ms);
        if answer.error_code != code::NONE {
            return Err(Failure::of(answer.error_code));
        }
        let part = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let mut part = part.ok_or_else(|| Failure::Passing("the answer is empty".to_owned()))?;
        if part.error_code != code::NONE {
            return Err(Failure::of(part.error_code));
        }
        let ends = tail::ends_of(&part);
        let unpacked = Packed {
            partition,
            from,
            isolation,
            bytes_max: self.options.decompressed_bytes_max,
            aborted: part.aborted_transactions.take().unwrap_or_default(),
            records: part.records.take().unwrap_or_default(),
        }
        .unpack();
        match unpacked.error {
            // What came before it is handed out; the next read begins at it.
            Some(error) if unpacked.next == from => Err(Failure::Final(error.to_string())),
            Some(_) | None => Ok(ReadAnswer { batches: unpacked.batches, next: unpacked.next, ends }),
        }
    }
}

/// Partitions by the node that leads them.
pub(super) fn by_leader(cluster: &Cluster, partitions: &[Partition]) -> Result<BTreeMap<i32, Vec<Partition>>, Failure> {
    let mut nodes: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
    for partition in partitions {
        let leader = cluster.leader(*partition);
        let leader = leader.ok_or_else(|| Failure::Final(format!("there is no {partition:?}")))?;
        let node = leader.node.ok_or_else(|| Failure::Passing(format!("{partition:?} has no leader")))?;
        let asked = nodes.entry(node).or_default();
        if !asked.contains(partition) {
            asked.push(*partition);
        }
    }
    Ok(nodes)
}

/// Asks `connection` and puts its error in words.
pub(super) async fn call<C: Call>(connection: &Connection, request: &C, wait: Duration) -> Result<C::Answer, Failure> {
    Ok(connection.call(request, wait).await?)
}
