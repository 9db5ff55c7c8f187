//! Records to append, and what became of them.

use std::sync::atomic::{AtomicU64, Ordering};

use millrace::clock;
use millrace::journal::kafka::KafkaJournal;
use millrace::journal::{
    AckGroup, AckSink, Batch, Isolation, Journal, NotTaken, Offset, Outcome, Partition, Tail, TailEvent, Ticket,
    TopicIndex,
};
use millrace::message::RecordRef;

use crate::cluster::Result;

/// Bytes of a record's value.
pub const VALUE_BYTES: usize = 500;
/// How many different ones there are.
pub const VALUES: usize = 1_000;
/// How many different keys there are, each of 30 bytes.
const KEYS: u32 = 1_000;
/// After so many appends the generator lets others run.
const APPENDS_PER_TURN: u64 = 256;

/// What the values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Random capital letters, as Kafka's own tool makes them: hardly compresses.
    Letters,
    /// JSON with numbers that vary: compresses to about a third.
    Telemetry,
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Values of one look, the same in every run.
pub fn values(look: Look) -> Vec<Vec<u8>> {
    let mut state = 7;
    (0..VALUES).map(|_| value(look, &mut state)).collect()
}

fn value(look: Look, state: &mut u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(VALUE_BYTES + 64);
    while out.len() < VALUE_BYTES {
        match look {
            Look::Letters => out.push(b'A' + u8::try_from(next(state) % 26).unwrap_or(0)),
            Look::Telemetry => {
                let (speed, at) = (next(state) % 240, 1_700_000_000 + next(state) % 100_000);
                out.extend_from_slice(format!("{{\"speed\":{speed},\"at\":{at},\"ok\":true}},").as_bytes());
            }
        }
    }
    out.truncate(VALUE_BYTES);
    out
}

/// Keys of 30 bytes.
pub fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("fleet/berlin/car-{number:07}/speed")).collect()
}

/// A partition of the only kafka topic.
pub fn partition(number: u32) -> Partition {
    Partition { topic: TopicIndex(0), number }
}

/// All of them.
pub fn partitions(journal: &KafkaJournal) -> Vec<Partition> {
    (0..journal.partitions(TopicIndex(0))).map(partition).collect()
}

/// A tail that follows all partitions from their ends.
pub async fn tail_from_ends(journal: &KafkaJournal) -> Result<Box<dyn Tail>> {
    let partitions = partitions(journal);
    let ends = journal.ends(&partitions).await?;
    let mut tail = journal.tail(Isolation::ReadUncommitted);
    for (partition, ends) in partitions.iter().zip(ends) {
        tail.follow(*partition, ends.high_watermark);
    }
    Ok(tail)
}

/// A tail that follows all partitions from the start.
pub fn tail_from_start(journal: &KafkaJournal) -> Box<dyn Tail> {
    let mut tail = journal.tail(Isolation::ReadUncommitted);
    for partition in partitions(journal) {
        tail.follow(partition, Offset(0));
    }
    tail
}

/// What a tail said.
pub enum Heard {
    /// Records.
    Batch(Batch),
    /// It went on without any, to this offset.
    Moved(Partition, Offset),
}

/// The next event; here, all that is lost is an error.
pub async fn next_event(tail: &mut Box<dyn Tail>) -> Result<Heard> {
    match tail.next().await {
        TailEvent::Batch(batch) => Ok(Heard::Batch(batch)),
        TailEvent::Progress { partition, next, .. } => Ok(Heard::Moved(partition, next)),
        lost @ (TailEvent::BelowLogStart { .. }
        | TailEvent::Rewound { .. }
        | TailEvent::Recreated { .. }
        | TailEvent::PartitionsAdded { .. }
        | TailEvent::Gap { .. }) => Err(format!("the tail lost its place: {lost:?}").into()),
    }
}

/// Counts outcomes.
#[derive(Debug, Default)]
pub struct Counted {
    written: AtomicU64,
    others: AtomicU64,
}

impl AckSink for Counted {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let count = group.tickets.len() as u64;
        match group.outcome {
            Outcome::Written(_) => self.written.fetch_add(count, Ordering::Relaxed),
            Outcome::Refused(_) | Outcome::Unknown => self.others.fetch_add(count, Ordering::Relaxed),
        };
    }

    fn flush(&self) {}
}

impl Counted {
    /// Written, and what did not become so.
    pub fn read(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.others.load(Ordering::Relaxed))
    }
}

/// Appends as fast as the journal takes: record `n` has key and value `n` of those given, in turn, and goes to
/// partition `n`, in turn.
pub async fn append_all(journal: &KafkaJournal, count: u64, values: &[Vec<u8>]) -> Result<()> {
    let keys = keys();
    let partitions = partitions(journal);
    let all = partitions.iter().cycle().zip(keys.iter().cycle().zip(values.iter().cycle()));
    for (sequence, (partition, (key, value))) in (0..count).zip(all) {
        let ticket = Ticket { owner: 1, sequence };
        append(journal, ticket, *partition, key.as_bytes(), Some(value)).await?;
        if sequence % APPENDS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Appends one record, waiting for room if there is none.
pub async fn append(
    journal: &KafkaJournal,
    ticket: Ticket,
    partition: Partition,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    let record = RecordRef { key: Some(key), value, headers: &[], timestamp_ms: clock::wall_ms() };
    loop {
        match journal.append(ticket, partition, &record) {
            Ok(()) => return Ok(()),
            Err(NotTaken::Full) => journal.room().await,
            Err(why) => return Err(why.into()),
        }
    }
}
