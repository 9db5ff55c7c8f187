//! What a journal must offer to be tested, and what the tests share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace::clock;
use millrace::journal::{
    AckGroup, AckSink, Batch, Isolation, NotTaken, Offset, Outcome, Partition, SharedJournal, Tail, TailEvent, Ticket,
    TopicIndex, TopicSpec,
};
use millrace::message::{Header, RecordRef};

pub const P0: Partition = Partition { topic: TopicIndex(0), number: 0 };
pub const P1: Partition = Partition { topic: TopicIndex(0), number: 1 };
/// Enough that no test meets it by accident.
pub const AMPLE_BYTES: usize = 32 << 20;

/// A log to test with. A Kafka one takes its bootstrap address from `MILLRACE_TEST_KAFKA`.
pub trait Fixture {
    /// Opens a journal whose topic indexes stand for `specs` in their order, creating the kafka topics that do not exist;
    /// opened again with the same, it is a second journal on the same log. `sink` gets the outcomes.
    fn open(
        &self,
        specs: &[TopicSpec],
        append_bytes_max: usize,
        sink: Arc<dyn AckSink>,
    ) -> impl Future<Output = SharedJournal>;

    /// Uses up at least one offset at the end of a partition with nothing that can be read (a control record, say). False
    /// if this log has no way to: then what needs it is not tested.
    fn leave_hole(&self, topic: &str, number: u32) -> impl Future<Output = bool> {
        let _ = (topic, number);
        std::future::ready(false)
    }
}

/// Fails a test that hangs.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("the journal did what was asked in a minute")
}

/// A kafka topic of two partitions that no other test uses.
pub fn fresh_topic() -> TopicSpec {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    TopicSpec {
        name: format!("contract-{}-{}-{number}", std::process::id(), clock::wall_ms()),
        partitions: 2,
        replication_factor: None,
        configs: vec![],
    }
}

/// A journal under test with its outcomes.
pub struct Subject {
    pub journal: SharedJournal,
    pub acks: Arc<Acks>,
    pub spec: TopicSpec,
}

impl Subject {
    pub async fn open(fixture: &impl Fixture) -> Self {
        Self::open_on(fixture, fresh_topic(), AMPLE_BYTES).await
    }

    pub async fn open_on(fixture: &impl Fixture, spec: TopicSpec, append_bytes_max: usize) -> Self {
        let acks = Arc::new(Acks::default());
        let sink: Arc<dyn AckSink> = Arc::<Acks>::clone(&acks);
        let journal = fixture.open(std::slice::from_ref(&spec), append_bytes_max, sink).await;
        Self { journal, acks, spec }
    }

    /// Appends a record that says which one it is, waiting for room if need be.
    pub async fn put(&self, partition: Partition, sequence: u64) {
        let value = sequence.to_string();
        self.put_record(partition, sequence, &RecordRef { value: Some(value.as_bytes()), ..plain() }).await;
    }

    pub async fn put_record(&self, partition: Partition, sequence: u64, record: &RecordRef<'_>) {
        loop {
            match self.journal.append(ticket(sequence), partition, record) {
                Ok(()) => return,
                Err(NotTaken::Full) => self.journal.room().await,
                Err(other) => panic!("{other}"),
            }
        }
    }

    pub async fn put_all(&self, partition: Partition, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            self.put(partition, sequence).await;
        }
        self.flush().await;
    }

    pub async fn flush(&self) {
        assert!(self.journal.flush(Duration::from_secs(50)).await, "every append had its outcome");
    }

    pub fn follow(&self, partition: Partition, from: i64) -> Box<dyn Tail> {
        let mut tail = self.journal.tail(Isolation::ReadCommitted);
        tail.follow(partition, Offset(from));
        tail
    }

    /// Everything in a partition from its start on.
    pub async fn read_all(&self, partition: Partition) -> Vec<Owned> {
        let (mut from, mut records) = (Offset(0), vec![]);
        loop {
            let answer = self.journal.read(partition, from, 1 << 20, Isolation::ReadCommitted).await.unwrap();
            records.extend(answer.batches.iter().flat_map(owned));
            if answer.next >= answer.ends.last_stable {
                return records;
            }
            assert!(answer.next > from, "a read that gets nowhere");
            from = answer.next;
        }
    }
}

pub fn plain() -> RecordRef<'static> {
    RecordRef { key: Some(b"key"), value: Some(b"value"), headers: &[], timestamp_ms: 1_700_000_000_000 }
}

pub fn ticket(sequence: u64) -> Ticket {
    Ticket { owner: 7, sequence }
}

/// The outcomes of a journal's appends, each append's own offset in place of its group's first.
#[derive(Default)]
pub struct Acks {
    told: Mutex<BTreeMap<Ticket, (Partition, Outcome)>>,
}

impl Acks {
    pub fn of(&self, sequence: u64) -> Option<(Partition, Outcome)> {
        self.told.lock().unwrap().get(&ticket(sequence)).copied()
    }

    pub fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// The offset where an append was written.
    pub fn written(&self, sequence: u64) -> i64 {
        match self.of(sequence) {
            Some((_, Outcome::Written(offset))) => offset.0,
            other => panic!("append {sequence}: {other:?}"),
        }
    }
}

impl AckSink for Acks {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let mut told = self.told.lock().unwrap();
        assert!(!group.tickets.is_empty());
        for (index, ticket) in (0..).zip(group.tickets) {
            let outcome = match group.outcome {
                Outcome::Written(first) => Outcome::Written(Offset(first.0 + index)),
                other @ (Outcome::Refused(_) | Outcome::Unknown) => other,
            };
            let before = told.insert(*ticket, (group.partition, outcome));
            assert!(before.is_none(), "a second outcome for {ticket:?}: {before:?}, {outcome:?}");
        }
    }

    fn flush(&self) {}
}

/// A record with all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    /// Which append it was.
    pub fn sequence(&self) -> u64 {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).parse().expect("a record of `put`")
    }

    pub fn of(offset: i64, record: &RecordRef<'_>) -> Self {
        let header = |header: &Header<'_>| (header.name.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

/// The records of a batch that are handed out.
pub fn owned(batch: &Batch) -> Vec<Owned> {
    batch.check().unwrap();
    let owned = |record: millrace::journal::StoredRecord<'_>| {
        let headers: Vec<_> = record.headers().collect();
        let RecordRef { key, value, .. } = RecordRef { key: record.key, value: record.value(), ..plain() };
        Owned::of(record.offset.0, &RecordRef { key, value, headers: &headers, timestamp_ms: record.timestamp_ms })
    };
    batch.iter().map(owned).collect()
}

/// The next `count` records of a tail that follows one partition. Whatever else but progress it says fails the test.
pub async fn next_records(tail: &mut Box<dyn Tail>, count: usize) -> Vec<Owned> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(records_of(&tail.next().await));
    }
    seen
}

pub fn records_of(event: &TailEvent) -> Vec<Owned> {
    match event {
        TailEvent::Batch(batch) => owned(batch),
        TailEvent::Progress { .. } => vec![],
        TailEvent::BelowLogStart { .. }
        | TailEvent::Rewound { .. }
        | TailEvent::Recreated { .. }
        | TailEvent::PartitionsAdded { .. }
        | TailEvent::Gap { .. } => panic!("{event:?}"),
    }
}

pub fn sequences(records: &[Owned]) -> Vec<u64> {
    records.iter().map(Owned::sequence).collect()
}
