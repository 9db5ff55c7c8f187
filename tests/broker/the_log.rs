//! A test's kafka topics as programs that know nothing of Millrace see them: with rskafka, or in the memory log.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::clock;
use millrace::journal::memory::{ForeignWrite, SharedLog};
use millrace::journal::{Isolation, Offset, Partition, TopicIndex};
use millrace::message::{Header, RecordRef};
use millrace::route::partition::partition_of;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::{chrono, record};

use crate::fixture::{Journal, Place};
use crate::programs::kafka_tool;

/// Longest wait for Kafka.
const LIMIT: Duration = Duration::from_secs(20);
/// The producer id of what is written past Millrace in a memory log.
const FOREIGN_PRODUCER: i64 = 4_711;

/// A record of another program.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForeignRecord {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
}

/// A record that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: u32,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<Vec<u8>>,
    /// By name, which is all that rskafka keeps of their order.
    pub(crate) headers: BTreeMap<String, Vec<u8>>,
}

/// A record with a key and a text.
pub(crate) fn record(key: &str, value: &str) -> ForeignRecord {
    ForeignRecord { key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
}

impl Place {
    /// Writes records as another program does that partitions like the Java client.
    pub(crate) fn write(&self, kafka_topic: &str, records: &[ForeignRecord]) {
        for record in records {
            let partitions = self.partitions(kafka_topic);
            let number = partition_of(record.key.as_deref().unwrap_or_default(), partitions);
            self.write_to(kafka_topic, number, std::slice::from_ref(record));
        }
    }

    /// Writes records into one partition, whatever their keys.
    pub(crate) fn write_to(&self, kafka_topic: &str, number: u32, records: &[ForeignRecord]) {
        match &self.journal {
            Journal::Memory(log) => write_memory(log, kafka_topic, number, records, ForeignWrite::Plain),
            Journal::Kafka(bootstrap) => {
                write_kafka(bootstrap, kafka_topic, number, records, Compression::NoCompression);
            }
        }
    }

    /// The records of a transaction that committed or aborted: keys `txn/0` to `txn/9`, values that begin with the
    /// outcome and the number.
    pub(crate) fn write_transaction(&self, kafka_topic: &str, commit: bool) {
        let outcome = if commit { "commit" } else { "abort" };
        match &self.journal {
            Journal::Memory(log) => {
                let write = if commit { ForeignWrite::Committed } else { ForeignWrite::Aborted };
                for number in 0..10 {
                    let record = record(&format!("txn/{number}"), &format!("{outcome} {number} "));
                    let place = partition_of(record.key.as_deref().unwrap_or_default(), self.partitions(kafka_topic));
                    write_memory(log, kafka_topic, place, &[record], write);
                }
            }
            Journal::Kafka(bootstrap) => drop(kafka_tool("txn-producer", &[bootstrap, kafka_topic, outcome])),
        }
    }

    /// How many partitions a kafka topic has.
    pub(crate) fn partitions(&self, kafka_topic: &str) -> u32 {
        match &self.journal {
            Journal::Memory(log) => log.with(|log| {
                let described = log.describe(&[kafka_topic.to_owned()]);
                described[0].as_ref().map_or(0, |topic| topic.partitions)
            }),
            Journal::Kafka(bootstrap) => block_on(async {
                let client = ClientBuilder::new(vec![bootstrap.clone()]).build().await.unwrap();
                let topics = client.list_topics().await.unwrap();
                let topic = topics.into_iter().find(|topic| topic.name == kafka_topic).unwrap();
                u32::try_from(topic.partitions.len()).unwrap()
            }),
        }
    }

    /// Every record of a kafka topic, in offset order within each partition.
    pub(crate) fn read(&self, kafka_topic: &str) -> Vec<Stored> {
        let partitions = self.partitions(kafka_topic);
        let read = |number| match &self.journal {
            Journal::Memory(log) => read_memory(log, kafka_topic, number),
            Journal::Kafka(bootstrap) => read_kafka(bootstrap, kafka_topic, number),
        };
        (0..partitions).flat_map(read).collect()
    }
}

fn write_memory(log: &SharedLog, kafka_topic: &str, number: u32, records: &[ForeignRecord], write: ForeignWrite) {
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(name, value)| Header { name, value: Some(value.as_slice()) }).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let record = RecordRef { key, value, headers: &headers, timestamp_ms: clock::wall_ms() };
        let offset = log.with(|log| log.write_foreign(FOREIGN_PRODUCER, kafka_topic, number, &[record], write));
        assert!(offset.is_some(), "there is no partition {number} of {kafka_topic}");
    }
}

fn read_memory(log: &SharedLog, kafka_topic: &str, number: u32) -> Vec<Stored> {
    let partition = Partition { topic: TopicIndex(0), number };
    let answer = log.with(|log| {
        let reader = log.open(vec![kafka_topic.to_owned()]);
        let answer = log.read(reader, partition, Offset(0), usize::MAX, Isolation::ReadCommitted);
        log.close(reader);
        answer.unwrap()
    });
    let stored = |record: millrace::journal::StoredRecord<'_>| Stored {
        partition: number,
        key: record.key.map(|key| String::from_utf8_lossy(key).into_owned()),
        value: record.value().map(<[u8]>::to_vec),
        headers: record.headers().map(|h| (h.name.to_owned(), h.value.unwrap_or_default().to_vec())).collect(),
    };
    answer.batches.iter().flat_map(|batch| batch.iter().map(stored).collect::<Vec<_>>()).collect()
}

/// Writes records with rskafka.
pub(crate) fn write_kafka(
    bootstrap: &str,
    kafka_topic: &str,
    number: u32,
    records: &[ForeignRecord],
    compression: Compression,
) {
    let records = records.iter().map(|record| record::Record {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        timestamp: chrono::DateTime::from_timestamp_millis(clock::wall_ms()).unwrap(),
    });
    let records: Vec<_> = records.collect();
    block_on(async {
        let partition = partition_client(bootstrap, kafka_topic, number).await;
        partition.produce(records, compression).await.unwrap();
    });
}

/// Reads a partition from its first record to its end with rskafka.
pub(crate) fn read_kafka(bootstrap: &str, kafka_topic: &str, number: u32) -> Vec<Stored> {
    const BYTES: std::ops::Range<i32> = 1..1_000_000;
    const WAIT_MS: i32 = 500;
    let records = block_on(async {
        let partition = partition_client(bootstrap, kafka_topic, number).await;
        let end = partition.get_offset(OffsetAt::Latest).await.unwrap();
        let (mut records, mut next) = (Vec::new(), 0);
        while next < end {
            let (more, _) = partition.fetch_records(next, BYTES, WAIT_MS).await.unwrap();
            next = more.last().map_or(end, |last| last.offset + 1);
            records.extend(more);
        }
        records
    });
    let stored = |record: record::Record| Stored {
        partition: number,
        key: record.key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        value: record.value,
        headers: record.headers,
    };
    records.into_iter().map(|record| stored(record.record)).collect()
}

async fn partition_client(bootstrap: &str, kafka_topic: &str, number: u32) -> PartitionClient {
    let client = ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.unwrap();
    let number = i32::try_from(number).unwrap();
    client.partition_client(kafka_topic, number, UnknownTopicHandling::Retry).await.unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, future).await }).unwrap()
}
