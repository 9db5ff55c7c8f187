//! Fences (F9): after one, the leader of a partition takes nothing more from a dead incarnation's producer, however long
//! its writes were queued somewhere.
//!
//! A leader refuses a producer's writes of an epoch that is lower than the highest it has seen. So a fence is a write
//! under the dead node's producer id with an epoch that no node reaches by itself. Never the next epoch: a zombie that
//! moves there by itself would be told of a success that is not in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::WriteTxnMarkersRequest;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use tokio::time::sleep;

use super::admin::{Admin, Failure, by_leader};
use super::appender::{TopicBatches, Verdict, produce_frame};
use super::connection::Connection;
use super::metadata::topic_name;
use super::records::{Compression, OpenBatch};
use super::wire::{self, Call, code};
use crate::clock;
use crate::journal::{JournalError, Offset, Partition, Ticket, TopicIndex};
use crate::message::{Header, RecordRef, headers};

/// A marker's epoch: one below the largest, so that a record can follow where a marker went before.
const MARKER_EPOCH: i16 = i16::MAX - 1;
/// A record's epoch.
const RECORD_EPOCH: i16 = i16::MAX;
/// A record's key. It is the same for all, so that a compacted kafka topic keeps only the last one, and not for long.
pub const FENCE_KEY: &[u8] = b"mqtt-fence";
const FENCE_BYTES_MAX: usize = 1024;
const PAUSE: Duration = Duration::from_millis(100);
/// How long Kafka may wait for the in-sync replicas.
const WAIT: Duration = Duration::from_secs(2);
/// No partition has this number: what would be written there is not.
const NO_PARTITION: i32 = i32::MAX;

/// How a fence is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceForm {
    /// As the end of a transaction that never was: nobody sees it. Kafka wants `ClusterAction` or `Alter` on the cluster.
    Marker,
    /// As a record without a value and with the header `mqtt-fence`, which readers drop. Whoever may write to the kafka
    /// topic may write it.
    Record,
}

/// One partition's answer: fenced, or to be tried again because.
type Answers = BTreeMap<Partition, Result<(), String>>;

impl Admin {
    /// See [`super::KafkaJournal::fence`].
    pub async fn fence(
        self: &Arc<Self>,
        producer_id: i64,
        partitions: &[Partition],
        form: FenceForm,
        limit: Duration,
    ) -> Vec<Result<(), JournalError>> {
        let deadline = clock::now() + limit;
        let mut told: Answers =
            partitions.iter().map(|partition| (*partition, Err("it was not tried".to_owned()))).collect();
        loop {
            let left: Vec<Partition> =
                told.iter().filter(|(_, told)| told.is_err()).map(|(partition, _)| *partition).collect();
            if left.is_empty() {
                break;
            }
            told.extend(self.fence_once(producer_id, &left, form).await);
            if told.values().all(Result::is_ok) || !pause_before(deadline).await {
                break;
            }
            self.metadata.refresh();
        }
        let results = partitions.iter().map(|partition| match told.get(partition) {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(JournalError::Unavailable { doing: format!("to fence {partition:?}: {why}") }),
            None => Err(JournalError::Closed),
        });
        results.collect()
    }

    async fn fence_once(self: &Arc<Self>, producer_id: i64, partitions: &[Partition], form: FenceForm) -> Answers {
        let cluster = self.metadata.cluster();
        let mut answers = Answers::new();
        let mut asked = Vec::new();
        for partition in partitions {
            if let Err(Failure::Passing(why) | Failure::Final(why)) = by_leader(&cluster, &[*partition]) {
                answers.insert(*partition, Err(why));
            }
        }
        let led: Vec<Partition> =
            partitions.iter().copied().filter(|partition| !answers.contains_key(partition)).collect();
        for (node, partitions) in by_leader(&cluster, &led).unwrap_or_default() {
            let admin = Arc::clone(self);
            let task = async move {
                let told = match form {
                    FenceForm::Marker => admin.marker(node, producer_id, &partitions).await,
                    FenceForm::Record => admin.record(node, producer_id, &partitions).await,
                };
                told.unwrap_or_else(|why| partitions.iter().map(|partition| (*partition, Err(why.clone()))).collect())
            };
            asked.push(crate::ops::tasks::spawn("kafka fence", task));
        }
        for task in asked {
            answers.extend(task.await.unwrap_or_default());
        }
        answers
    }

    async fn marker(&self, node: i32, producer_id: i64, partitions: &[Partition]) -> Result<Answers, String> {
        let mut topics: BTreeMap<TopicIndex, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
            topics.entry(partition.topic).or_default().push(number);
        }
        let topics = topics.into_iter().filter_map(|(topic, numbers)| {
            let name = self.names.get(usize::from(topic.0))?.clone();
            Some(WritableTxnMarkerTopic::default().with_name(name).with_partition_indexes(numbers))
        });
        let connection = self.control.to(node).await?;
        let codes = write_marker(&connection, producer_id, topics.collect()).await?;
        let answers = codes.into_iter().filter_map(|(name, number, error)| {
            let topic = self.names.iter().position(|known| known.as_str() == name)?;
            let topic = TopicIndex(u16::try_from(topic).ok()?);
            Some((Partition { topic, number: u32::try_from(number).ok()? }, marker_told(error)))
        });
        Ok(answers.collect())
    }

    async fn record(&self, node: i32, producer_id: i64, partitions: &[Partition]) -> Result<Answers, String> {
        let connection = self.control.to(node).await?;
        let spoken = &wire::PRODUCE_SPOKEN;
        let version = connection.version_of(wire::PRODUCE, spoken).map_err(|error| error.to_string())?;
        let bytes = fence_record(producer_id).ok_or("the fence does not fit into a batch")?;
        let mut topics: BTreeMap<TopicIndex, TopicBatches> = BTreeMap::new();
        for partition in partitions {
            let Some(name) = self.name(*partition) else { continue };
            let topic = topics
                .entry(partition.topic)
                .or_insert_with(|| TopicBatches { name: name.clone(), batches: Vec::new() });
            topic.batches.push((i32::try_from(partition.number).unwrap_or(i32::MAX), bytes.clone()));
        }
        let topics: Vec<TopicBatches> = topics.into_values().collect();
        let wait_ms = u32::try_from(WAIT.as_millis()).unwrap_or(u32::MAX);
        let frame = produce_frame(&topics, wait_ms, version, connection.next_correlation(), connection.client_id())?;
        let answer = connection.call_frame(frame, WAIT).await.map_err(|lost| lost.to_string())?;
        let answer = wire::decode_produce(answer, version)?;
        connection.hold_back(answer.throttle_time_ms);
        let mut answers = Answers::new();
        for topic in &answer.responses {
            let Some(index) = self.names.iter().position(|name| *name == topic.name) else { continue };
            let Ok(index) = u16::try_from(index) else { continue };
            for part in &topic.partition_responses {
                let Ok(number) = u32::try_from(part.index) else { continue };
                let told = match Verdict::of(part) {
                    Verdict::Written(Offset(_)) | Verdict::WrittenSomewhere => Ok(()),
                    Verdict::Retry { .. }
                    | Verdict::Refused(_)
                    | Verdict::TooLarge
                    | Verdict::Invalid(_)
                    | Verdict::OutOfSequence
                    | Verdict::Fenced => Err(wire::words(part.error_code)),
                };
                answers.insert(Partition { topic: TopicIndex(index), number }, told);
            }
        }
        Ok(answers)
    }

    /// See [`super::KafkaJournal::fence_form`]: asks to write a marker where nothing is.
    pub async fn fence_form(&self) -> Result<FenceForm, JournalError> {
        self.persist("the fence that the cluster allows", async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            if connection.version::<WriteTxnMarkersRequest>().is_err() {
                return Ok(FenceForm::Record);
            }
            let name = self.names.first().cloned().unwrap_or_else(|| topic_name("mqtt-fence"));
            let topic = WritableTxnMarkerTopic::default().with_name(name).with_partition_indexes(vec![NO_PARTITION]);
            let codes = write_marker(&connection, i64::MAX, vec![topic]).await.map_err(Failure::Passing)?;
            match codes.first() {
                Some((_, _, code::CLUSTER_AUTHORIZATION_FAILED | code::TOPIC_AUTHORIZATION_FAILED)) => {
                    Ok(FenceForm::Record)
                }
                Some((_, _, code::UNKNOWN_TOPIC_OR_PARTITION)) => Ok(FenceForm::Marker),
                Some((_, _, error)) => Err(Failure::Passing(wire::words(*error))),
                None => Err(Failure::Passing("the answer is empty".to_owned())),
            }
        })
        .await
    }
}

/// False when the time is up.
async fn pause_before(deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(clock::now());
    sleep(PAUSE.min(left)).await;
    !left.is_zero()
}

fn marker_told(error: i16) -> Result<(), String> {
    match error {
        // Somebody wrote a fence of an even higher epoch.
        code::NONE | code::INVALID_PRODUCER_EPOCH => Ok(()),
        error => Err(wire::words(error)),
    }
}

async fn write_marker(
    connection: &Connection,
    producer_id: i64,
    topics: Vec<WritableTxnMarkerTopic>,
) -> Result<Vec<(String, i32, i16)>, String> {
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer_id.into())
        .with_producer_epoch(MARKER_EPOCH)
        .with_transaction_result(false)
        .with_topics(topics)
        .with_coordinator_epoch(0);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer: <WriteTxnMarkersRequest as Call>::Answer =
        connection.call(&request, WAIT).await.map_err(|error| error.to_string())?;
    let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
    let codes = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |part| (name.clone(), part.partition_index, part.error_code))
    });
    Ok(codes.collect())
}

fn fence_record(producer_id: i64) -> Option<Bytes> {
    let mut batch = OpenBatch::new(FENCE_BYTES_MAX);
    let whose = producer_id.to_string();
    let headers = [Header { name: headers::FENCE, value: Some(whose.as_bytes()) }];
    let record = RecordRef { key: Some(FENCE_KEY), value: None, headers: &headers, timestamp_ms: clock::wall_ms() };
    batch.push(&record, Ticket { owner: 0, sequence: 0 }).ok()?;
    Some(batch.seal(producer_id, RECORD_EPOCH, 0, Compression::None)?.bytes)
}
