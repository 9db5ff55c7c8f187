//! What the tests have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace::clock;
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{
    AckGroup, AckSink, Isolation, Journal, Offset, Outcome, Partition, Tail, TailEvent, Ticket, TopicIndex, TopicSpec,
};
use millrace::message::RecordRef;
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_mins(1);

/// Kafka's address; says so when there is none.
pub fn bootstrap(test: &str) -> Option<Vec<String>> {
    match std::env::var("MILLRACE_TEST_KAFKA") {
        Ok(address) if !address.is_empty() => Some(address.split(',').map(str::to_owned).collect()),
        _ => {
            eprintln!("SKIPPED {test}: MILLRACE_TEST_KAFKA is not set");
            None
        }
    }
}

/// Skips a test without Kafka.
macro_rules! bootstrap_or_skip {
    () => {
        match $crate::support::bootstrap(module_path!()) {
            Some(bootstrap) => bootstrap,
            None => return,
        }
    };
}
pub(crate) use bootstrap_or_skip;

/// A name that no other test or run has.
pub fn fresh_name(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test.{what}.{}.{}.{count}", std::process::id(), clock::wall_ms())
}

/// Keeps all outcomes.
#[derive(Debug, Default)]
pub struct Acks(Mutex<Vec<(Partition, Ticket, Outcome)>>);

impl AckSink for Acks {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let mut acks = self.0.lock().unwrap();
        for (index, ticket) in (0..).zip(group.tickets) {
            let outcome = match group.outcome {
                Outcome::Written(first) => Outcome::Written(Offset(first.0 + index)),
                other => other,
            };
            acks.push((group.partition, *ticket, outcome));
        }
    }

    fn flush(&self) {}
}

impl Acks {
    pub fn all(&self) -> Vec<(Partition, Ticket, Outcome)> {
        self.0.lock().unwrap().clone()
    }

    pub fn of(&self, ticket: Ticket) -> Vec<Outcome> {
        self.all().into_iter().filter(|(_, of, _)| *of == ticket).map(|(_, _, outcome)| outcome).collect()
    }
}

/// A kafka topic with a journal on it.
pub struct Fixture {
    pub name: String,
    pub journal: KafkaJournal,
    pub acks: Arc<Acks>,
}

pub fn spec(name: &str, partitions: u32, configs: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        replication_factor: None,
        configs: configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

pub async fn create(bootstrap: &[String], specs: &[TopicSpec]) {
    let options = KafkaOptions::new(bootstrap.to_vec());
    let admin = KafkaJournal::open(options, Vec::new(), Arc::new(Acks::default())).await.unwrap();
    admin.create(specs).await.unwrap();
}

impl Fixture {
    pub async fn new(bootstrap: &[String], what: &str, partitions: u32, configs: &[(&str, &str)]) -> Self {
        let name = fresh_name(what);
        create(bootstrap, &[spec(&name, partitions, configs)]).await;
        Self::on(KafkaOptions::new(bootstrap.to_vec()), name).await
    }

    pub async fn on(options: KafkaOptions, name: String) -> Self {
        let acks = Arc::new(Acks::default());
        let journal = KafkaJournal::open(options, vec![name.clone()], Arc::clone(&acks) as _).await.unwrap();
        Self { name, journal, acks }
    }

    pub fn append(&self, number: u32, sequence: u64, key: &str, value: &[u8]) {
        let record =
            RecordRef { key: Some(key.as_bytes()), value: Some(value), headers: &[], timestamp_ms: clock::wall_ms() };
        self.journal.append(ticket(sequence), partition(number), &record).unwrap();
    }

    /// Appends and waits; the offset.
    pub async fn write(&self, number: u32, sequence: u64, key: &str, value: &[u8]) -> Offset {
        self.append(number, sequence, key, value);
        assert!(self.journal.flush(PATIENCE).await, "no outcome in time");
        match self.acks.of(ticket(sequence)).as_slice() {
            [Outcome::Written(offset)] => *offset,
            other => panic!("not written: {other:?}"),
        }
    }
}

pub fn partition(number: u32) -> Partition {
    Partition { topic: TopicIndex(0), number }
}

pub fn ticket(sequence: u64) -> Ticket {
    Ticket { owner: 1, sequence }
}

/// Values of the records that come, until `count` are there.
pub async fn read_values(tail: &mut Box<dyn Tail>, count: usize) -> Vec<(Partition, Offset, Vec<u8>)> {
    let mut values = Vec::new();
    while values.len() < count {
        match timeout(PATIENCE, tail.next()).await.expect("the tail is silent") {
            TailEvent::Batch(batch) => {
                batch.check().unwrap();
                for record in &batch {
                    values.push((batch.partition, record.offset, record.value().unwrap_or_default().to_vec()));
                }
            }
            TailEvent::Progress { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    values
}

/// Follows partitions 0.. from their start.
pub fn follow_all(journal: &KafkaJournal, isolation: Isolation, partitions: u32) -> Box<dyn Tail> {
    let mut tail = journal.tail(isolation);
    for number in 0..partitions {
        tail.follow(partition(number), Offset(0));
    }
    tail
}

/// Runs one of Kafka's own tools.
pub fn tool(arguments: &[&str]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka-tool.sh");
    let output = tokio::task::block_in_place(|| std::process::Command::new(path).args(arguments).output().unwrap());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
