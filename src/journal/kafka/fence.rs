//! Fences (F9): after one, the leader of a partition takes nothing more from a dead incarnation's producer, however long
//! its writes were queued somewhere.
//!
//! A leader refuses a producer's writes of an epoch that is lower than the highest it has seen. So a fence is a write
//! under the dead node's producer id with an epoch that no node reaches by itself. Never the next epoch: a zombie that
//! moves there by itself would be told of a success that is not in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{TopicName, WriteTxnMarkersRequest};
use tokio::time::sleep;

use super::admin::{Admin, Failure, by_leader};
use super::appender::{TopicBatches, Verdict, produce_frame};
use super::connection::Connection;
use super::metadata::{self, topic_name};
use super::records::{Compression, OpenBatch};
use super::wire::{self, Call, code};
use crate::clock;
use crate::journal::{FenceForm, Fencing, JournalError, Offset, Partition, Refusal, Ticket, TopicIndex};
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
/// Kafka's bit for the operation `Write`.
const WRITE: i32 = 1 << 4;

/// One partition's answer: fenced, or why not. A final failure is one of the form, not of the fence.
type Answers = BTreeMap<Partition, Result<(), Failure>>;

impl Admin {
    /// The forms in the order in which they should be tried.
    pub fn likely_forms(&self) -> [FenceForm; 2] {
        match *self.fence_form.lock().unwrap_or_else(PoisonError::into_inner) {
            None | Some(FenceForm::Marker) => [FenceForm::Marker, FenceForm::Record],
            Some(FenceForm::Record) => [FenceForm::Record, FenceForm::Marker],
        }
    }

    /// See [`Journal::fence`](crate::journal::Journal::fence): in the first of `forms` that is allowed.
    pub async fn fence(
        self: &Arc<Self>,
        forms: &[FenceForm],
        producer_id: i64,
        partitions: &[Partition],
        limit: Duration,
    ) -> Vec<Result<(), JournalError>> {
        let deadline = clock::now() + limit;
        let untried = || Err(Failure::Final("it was not tried".to_owned()));
        let mut told: Answers = partitions.iter().map(|partition| (*partition, untried())).collect();
        for form in forms {
            let left = unfenced(&told, |failure| matches!(failure, Failure::Final(_)));
            if left.is_empty() {
                break;
            }
            let answers = self.fence_until(deadline, *form, producer_id, left).await;
            if answers.values().any(Result::is_ok) {
                *self.fence_form.lock().unwrap_or_else(PoisonError::into_inner) = Some(*form);
            }
            told.extend(answers);
        }
        let results = partitions.iter().map(|partition| {
            let doing = || format!("to fence {partition:?}");
            match told.get(partition) {
                Some(Ok(())) => Ok(()),
                Some(Err(Failure::Passing(why))) => {
                    Err(JournalError::Unavailable { doing: format!("{}: {why}", doing()) })
                }
                Some(Err(Failure::Final(why))) => Err(JournalError::Refused { doing: doing(), why: why.clone() }),
                None => Err(JournalError::Closed),
            }
        });
        results.collect()
    }

    /// Until all are fenced, cannot be in this form, or the time is up.
    async fn fence_until(
        self: &Arc<Self>,
        deadline: Instant,
        form: FenceForm,
        producer_id: i64,
        mut left: Vec<Partition>,
    ) -> Answers {
        let mut told = Answers::new();
        loop {
            told.extend(self.fence_once(producer_id, &left, form).await);
            left = unfenced(&told, |failure| matches!(failure, Failure::Passing(_)));
            if left.is_empty() || !pause_before(deadline).await {
                return told;
            }
            self.metadata.refresh();
        }
    }

    async fn fence_once(self: &Arc<Self>, producer_id: i64, partitions: &[Partition], form: FenceForm) -> Answers {
        let cluster = self.metadata.cluster();
        let mut answers = Answers::new();
        let mut asked = Vec::new();
        let mut led = Vec::new();
        for partition in partitions {
            match by_leader(&cluster, &[*partition]) {
                Ok(_) => led.push(*partition),
                // What is not there today may be there in a moment.
                Err(Failure::Passing(why) | Failure::Final(why)) => {
                    answers.insert(*partition, Err(Failure::Passing(why)));
                }
            }
        }
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
        for partition in partitions {
            let silent = || Err(Failure::Passing("the answer is incomplete".to_owned()));
            answers.entry(*partition).or_insert_with(silent);
        }
        answers
    }

    async fn marker(&self, node: i32, producer_id: i64, partitions: &[Partition]) -> Result<Answers, Failure> {
        let mut topics: BTreeMap<TopicIndex, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
            topics.entry(partition.topic).or_default().push(number);
        }
        let topics = topics.into_iter().filter_map(|(topic, numbers)| {
            let name = self.names.get(usize::from(topic.0))?.clone();
            Some(WritableTxnMarkerTopic::default().with_name(name).with_partition_indexes(numbers))
        });
        let connection = self.control.to(node).await.map_err(Failure::Passing)?;
        let codes = write_marker(&connection, producer_id, topics.collect()).await?;
        let answers = codes.into_iter().filter_map(|(name, number, error)| {
            let topic = self.names.iter().position(|known| known.as_str() == name)?;
            let topic = TopicIndex(u16::try_from(topic).ok()?);
            Some((Partition { topic, number: u32::try_from(number).ok()? }, marker_told(error)))
        });
        Ok(answers.collect())
    }

    async fn record(&self, node: i32, producer_id: i64, partitions: &[Partition]) -> Result<Answers, Failure> {
        let connection = self.control.to(node).await.map_err(Failure::Passing)?;
        let spoken = &wire::PRODUCE_SPOKEN;
        let version =
            connection.version_of(wire::PRODUCE, spoken).map_err(|error| Failure::Final(error.to_string()))?;
        let unfit = || Failure::Final("the fence does not fit into a batch".to_owned());
        let bytes = fence_record(producer_id).ok_or_else(unfit)?;
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
        let correlation = connection.next_correlation();
        let frame = produce_frame(&topics, wait_ms, version, correlation, connection.client_id());
        let answer = connection.call_frame(frame.map_err(Failure::Final)?, WAIT).await?;
        let answer = wire::decode_produce(answer, version).map_err(Failure::Passing)?;
        connection.hold_back(answer.throttle_time_ms);
        let mut answers = Answers::new();
        for topic in &answer.responses {
            let Some(index) = self.names.iter().position(|name| *name == topic.name) else { continue };
            let Ok(index) = u16::try_from(index) else { continue };
            for part in &topic.partition_responses {
                let Ok(number) = u32::try_from(part.index) else { continue };
                let told = match Verdict::of(part) {
                    Verdict::Written(Offset(_)) | Verdict::WrittenSomewhere => Ok(()),
                    Verdict::Refused(Refusal::NoSuchPartition)
                    | Verdict::Retry { .. }
                    | Verdict::OutOfSequence
                    | Verdict::Fenced => Err(Failure::Passing(wire::words(part.error_code))),
                    Verdict::Refused(_) | Verdict::TooLarge | Verdict::Invalid(_) => {
                        Err(Failure::Final(wire::words(part.error_code)))
                    }
                };
                answers.insert(Partition { topic: TopicIndex(index), number }, told);
            }
        }
        Ok(answers)
    }

    /// See [`Journal::fencing`](crate::journal::Journal::fencing).
    pub async fn fencing(&self, names: &[String]) -> Result<Fencing, JournalError> {
        let topics: Vec<TopicName> = names.iter().map(|name| topic_name(name)).collect();
        self.persist("the fences that the cluster allows", async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            if may_write_markers(&connection).await? {
                return Ok(Fencing { form: Some(FenceForm::Marker), not_allowed: Vec::new() });
            }
            let writable = metadata::ask_operations(&connection, &topics).await.map_err(Failure::Passing)?;
            let is_barred = |name: &&String| writable.get(*name).is_some_and(|operations| operations & WRITE == 0);
            let not_allowed: Vec<String> = names.iter().filter(is_barred).cloned().collect();
            Ok(Fencing { form: not_allowed.is_empty().then_some(FenceForm::Record), not_allowed })
        })
        .await
    }
}

/// Asks to write a marker where nothing is: Kafka judges the user first.
async fn may_write_markers(connection: &Connection) -> Result<bool, Failure> {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name("mqtt-fence"))
        .with_partition_indexes(vec![NO_PARTITION]);
    let codes = match write_marker(connection, i64::MAX, vec![topic]).await {
        Ok(codes) => codes,
        // The node does not know the request.
        Err(Failure::Final(_)) => return Ok(false),
        Err(Failure::Passing(why)) => return Err(Failure::Passing(why)),
    };
    match codes.first() {
        Some((_, _, code::CLUSTER_AUTHORIZATION_FAILED | code::TOPIC_AUTHORIZATION_FAILED)) => Ok(false),
        Some((_, _, code::UNKNOWN_TOPIC_OR_PARTITION)) => Ok(true),
        Some((_, _, error)) => Err(Failure::Passing(wire::words(*error))),
        None => Err(Failure::Passing("the answer is empty".to_owned())),
    }
}

/// False when the time is up.
async fn pause_before(deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(clock::now());
    sleep(PAUSE.min(left)).await;
    !left.is_zero()
}

fn unfenced(told: &Answers, and: impl Fn(&Failure) -> bool) -> Vec<Partition> {
    told.iter().filter(|(_, told)| told.as_ref().is_err_and(&and)).map(|(partition, _)| *partition).collect()
}

fn marker_told(error: i16) -> Result<(), Failure> {
    match error {
        // Somebody wrote a fence of an even higher epoch.
        code::NONE | code::INVALID_PRODUCER_EPOCH => Ok(()),
        error => Err(Failure::of(error)),
    }
}

async fn write_marker(
    connection: &Connection,
    producer_id: i64,
    topics: Vec<WritableTxnMarkerTopic>,
) -> Result<Vec<(String, i32, i16)>, Failure> {
    if let Err(error) = connection.version::<WriteTxnMarkersRequest>() {
        return Err(Failure::Final(error.to_string()));
    }
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer_id.into())
        .with_producer_epoch(MARKER_EPOCH)
        .with_transaction_result(false)
        .with_topics(topics)
        .with_coordinator_epoch(0);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer: <WriteTxnMarkersRequest as Call>::Answer = connection.call(&request, WAIT).await?;
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
