//! What a record costs between us and a real Kafka (`MILLRACE_TEST_KAFKA`): `make bench-journal`.
//!
//! Arguments: `throughput`, `latency`, `idle`; all of them without any. `PARTITIONS` is 8,32 by default.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{
    AckGroup, AckSink, Isolation, Journal, NotTaken, Offset, Outcome, Partition, TailEvent, Ticket, TopicIndex,
    TopicSpec,
};
use millrace::message::RecordRef;
use tokio::time::{sleep, sleep_until, timeout};

const RECORDS: u64 = 600_000;
const WARM_UP: u64 = 100_000;
const VALUE_BYTES: usize = 500;
const OPEN_LOOP_PER_S: u64 = 2_000;
const OPEN_LOOP: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(20);
/// Linux counts processor time in hundredths of a second.
const TICKS_PER_S: f64 = 100.0;

/// Counts outcomes, and keeps the latencies of an open loop.
#[derive(Default)]
struct Sink {
    written: AtomicU64,
    other: AtomicU64,
    /// When each ticket was appended, in microseconds; empty if nobody asked.
    sent_us: Vec<AtomicU64>,
    latencies_us: Mutex<Vec<u64>>,
    started: Option<Instant>,
}

impl AckSink for Sink {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let count = group.tickets.len() as u64;
        match group.outcome {
            Outcome::Written(_) => self.written.fetch_add(count, Ordering::Relaxed),
            Outcome::Refused(_) | Outcome::Unknown => self.other.fetch_add(count, Ordering::Relaxed),
        };
        if let Some(started) = self.started {
            let now = micros(started);
            let sent = group.tickets.iter().filter_map(|ticket| self.sent_us.get(index(ticket.sequence)));
            let latencies = sent.map(|sent| now.saturating_sub(sent.load(Ordering::Relaxed)));
            self.latencies_us.lock().unwrap().extend(latencies);
        }
    }

    fn flush(&self) {}
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn micros(since: Instant) -> u64 {
    u64::try_from(clock::now().saturating_duration_since(since).as_micros()).unwrap()
}

/// Processor time of this process and of Kafka, in seconds.
fn cpu_seconds() -> (f64, f64) {
    let of = |path: &str| {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / TICKS_PER_S
    };
    let kafka = std::env::var("KAFKA_PIDS").unwrap_or_default();
    (of("/proc/self/stat"), kafka.split_whitespace().map(|pid| of(&format!("/proc/{pid}/stat"))).sum())
}

async fn open(partitions: u32, sink: Arc<dyn AckSink>) -> KafkaJournal {
    let address = std::env::var("MILLRACE_TEST_KAFKA").unwrap();
    let options = KafkaOptions::new(address.split(',').map(str::to_owned).collect());
    let name = format!("bench.{partitions}.{}.{}", std::process::id(), clock::wall_ms());
    let admin = KafkaJournal::open(options.clone(), Vec::new(), Arc::new(Sink::default())).await.unwrap();
    let spec = TopicSpec { name: name.clone(), partitions, replication_factor: None, configs: Vec::new() };
    admin.create(&[spec]).await.unwrap();
    KafkaJournal::open(options, vec![name], sink).await.unwrap()
}

fn partition(number: u64, partitions: u32) -> Partition {
    Partition { topic: TopicIndex(0), number: u32::try_from(number % u64::from(partitions)).unwrap() }
}

/// Half of it repeats: neither the best nor the worst case of a compressor.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    };
    (0..VALUE_BYTES).map(|at| if at % 2 == 0 { b'a' + (next() % 16) } else { b'=' }).collect()
}

async fn push(journal: &KafkaJournal, values: &[Vec<u8>], partitions: u32, range: std::ops::Range<u64>) {
    for sequence in range {
        let key = format!("device/{}", sequence % 1000);
        let value = &values[index(sequence) % values.len()];
        let record = RecordRef { key: Some(key.as_bytes()), value: Some(value), headers: &[], timestamp_ms: 0 };
        let record = RecordRef { timestamp_ms: clock::wall_ms(), ..record };
        while let Err(error) = journal.append(Ticket { owner: 1, sequence }, partition(sequence, partitions), &record) {
            assert_eq!(error, NotTaken::Full);
            journal.room().await;
        }
    }
    assert!(journal.flush(Duration::from_mins(2)).await);
}

async fn throughput(partitions: u32) {
    let sink = Arc::new(Sink::default());
    let journal = open(partitions, Arc::<Sink>::clone(&sink)).await;
    let values: Vec<Vec<u8>> = (0..97).map(value).collect();
    push(&journal, &values, partitions, 0..WARM_UP).await;
    let (started, (own, kafka)) = (clock::now(), cpu_seconds());
    let requests = journal.stats().produce_requests.load(Ordering::Relaxed);
    push(&journal, &values, partitions, 0..RECORDS).await;
    let (seconds, (own_after, kafka_after)) = (started.elapsed().as_secs_f64(), cpu_seconds());
    let per = |cpu: f64| cpu * 1e6 / RECORDS as f64;
    println!(
        "throughput, {partitions} partitions: {:.0} records/s, {:.2} µs of our processor time per record, {:.2} of \
         Kafka's, {} requests, {} not written",
        RECORDS as f64 / seconds,
        per(own_after - own),
        per(kafka_after - kafka),
        journal.stats().produce_requests.load(Ordering::Relaxed) - requests,
        sink.other.load(Ordering::Relaxed),
    );
}

fn percentiles(mut us: Vec<u64>) -> String {
    us.sort_unstable();
    let at = |share: f64| us.get((us.len() as f64 * share) as usize).map_or(0.0, |us| *us as f64 / 1000.0);
    format!("p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} ms", at(0.5), at(0.9), at(0.99), at(0.999))
}

async fn latency(partitions: u32) {
    let count = OPEN_LOOP_PER_S * OPEN_LOOP.as_secs();
    let started = clock::now();
    let sink = Arc::new(Sink {
        sent_us: (0..count).map(|_| AtomicU64::new(0)).collect(),
        started: Some(started),
        ..Sink::default()
    });
    let journal = Arc::new(open(partitions, Arc::<Sink>::clone(&sink)).await);
    let mut tail = journal.tail(Isolation::ReadCommitted);
    for number in 0..u64::from(partitions) {
        tail.follow(partition(number, partitions), Offset(0));
    }
    let reader_sink = Arc::clone(&sink);
    let reader = async move {
        let mut latencies = Vec::new();
        while latencies.len() < index(count) {
            if let TailEvent::Batch(batch) = timeout(Duration::from_secs(30), tail.next()).await.unwrap() {
                let now = micros(started);
                latencies.extend(batch.iter().map(|record| {
                    let sequence = u64::from_be_bytes(record.value().unwrap()[..8].try_into().unwrap());
                    now - reader_sink.sent_us[index(sequence)].load(Ordering::Relaxed)
                }));
            }
        }
        latencies
    };
    let reader = millrace::ops::tasks::spawn("reader", reader);
    sleep(Duration::from_secs(1)).await;
    let (before, began) = (cpu_seconds(), clock::now());
    let mut bytes = value(1);
    for sequence in 0..count {
        let due = began + Duration::from_micros(sequence * 1_000_000 / OPEN_LOOP_PER_S);
        if due > clock::now() {
            sleep_until(due.into()).await;
        }
        bytes[..8].copy_from_slice(&sequence.to_be_bytes());
        let record =
            RecordRef { key: Some(b"device"), value: Some(&bytes), headers: &[], timestamp_ms: clock::wall_ms() };
        sink.sent_us[index(sequence)].store(micros(started), Ordering::Relaxed);
        journal.append(Ticket { owner: 1, sequence }, partition(sequence, partitions), &record).unwrap();
    }
    let read = reader.await.unwrap();
    let (seconds, after) = (began.elapsed().as_secs_f64(), cpu_seconds());
    println!(
        "{OPEN_LOOP_PER_S}/s, {partitions} partitions: ack {}; end to end {}; cores {:.2} ours, {:.2} Kafka's; {} requests",
        percentiles(sink.latencies_us.lock().unwrap().clone()),
        percentiles(read),
        (after.0 - before.0) / seconds,
        (after.1 - before.1) / seconds,
        journal.stats().produce_requests.load(Ordering::Relaxed),
    );
}

async fn idle(partitions: u32) {
    let journal = open(partitions, Arc::new(Sink::default())).await;
    let mut tail = journal.tail(Isolation::ReadUncommitted);
    for number in 0..u64::from(partitions) {
        tail.follow(partition(number, partitions), Offset(0));
    }
    while timeout(Duration::from_secs(2), tail.next()).await.is_ok() {}
    let (before, requests) = (cpu_seconds(), journal.stats().fetch_requests.load(Ordering::Relaxed));
    assert!(timeout(IDLE, tail.next()).await.is_err(), "the tail had news");
    let (after, seconds) = (cpu_seconds(), IDLE.as_secs_f64());
    println!(
        "idle tail of {partitions} partitions: {:.2} % of a core ours, {:.2} % Kafka's, {:.1} requests/s",
        (after.0 - before.0) / seconds * 100.0,
        (after.1 - before.1) / seconds * 100.0,
        (journal.stats().fetch_requests.load(Ordering::Relaxed) - requests) as f64 / seconds,
    );
}

#[tokio::main]
async fn main() {
    if std::env::var("MILLRACE_TEST_KAFKA").is_err() {
        eprintln!("SKIPPED: MILLRACE_TEST_KAFKA is not set");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |what: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == what);
    let partitions = std::env::var("PARTITIONS").unwrap_or_else(|_| "8,32".to_owned());
    let partitions: Vec<u32> = partitions.split(',').map(|count| count.parse().unwrap()).collect();
    for count in partitions {
        if wants("throughput") {
            throughput(count).await;
        }
        if wants("latency") {
            latency(count).await;
        }
    }
    if wants("idle") {
        idle(64).await;
    }
}
