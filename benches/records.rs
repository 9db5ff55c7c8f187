//! What a record costs: to append, to skip, to read whole, to send through the memory journal. The throughput line is
//! records.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace::journal::kafka::records::{BatchWalk, Compression, OpenBatch};
use millrace::journal::memory::{FaultPlan, Limits, MemoryJournal, SharedLog};
use millrace::journal::{
    AckGroup, AckSink, Batch, Isolation, Journal, Offset, Partition, TailEvent, Ticket, TopicIndex, TopicSpec,
};
use millrace::message::{Header, RecordRef};

const RECORDS: u32 = 400;
const PARTITION: Partition = Partition { topic: TopicIndex(0), number: 0 };

/// A payload that compresses about as well as telemetry does.
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut out = Vec::with_capacity(bytes + 32);
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(format!("{{\"speed\":{},\"at\":{}}},", state >> 20, state >> 8).as_bytes());
    }
    out.truncate(bytes);
    out
}

fn fill(open: &mut OpenBatch, value: &[u8]) {
    let headers = [Header { name: "mqtt-qos", value: Some(b"1") }];
    let record =
        RecordRef { key: Some(b"cars/4711/speed"), value: Some(value), headers: &headers, timestamp_ms: 1_700_000_000 };
    for sequence in 0..u64::from(RECORDS) {
        open.push(black_box(&record), Ticket { owner: 1, sequence }).expect("a batch of 16 MiB takes it");
    }
}

fn sealed(value: &[u8], compression: Compression) -> Bytes {
    let mut open = OpenBatch::new(16 << 20);
    fill(&mut open, value);
    open.seal(1, 0, 0, compression).expect("there are records").bytes
}

fn opened(bytes: &Bytes) -> Batch {
    let raw = BatchWalk::new(bytes.clone()).next().expect("a batch").expect("a good one");
    raw.open(PARTITION, Offset(0), 64 << 20).expect("it decompresses")
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(RECORDS.into()));
    for bytes in [64, 500] {
        let value = payload(bytes);
        for compression in [Compression::None, Compression::Lz4] {
            let mut open = OpenBatch::new(16 << 20);
            group.bench_function(BenchmarkId::new(format!("{compression:?}"), bytes), |b| {
                b.iter(|| {
                    fill(&mut open, &value);
                    open.seal(1, 0, 0, compression)
                });
            });
        }
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(RECORDS.into()));
    for bytes in [64, 500] {
        let plain = sealed(&payload(bytes), Compression::None);
        let batch = opened(&plain);
        group.bench_function(BenchmarkId::new("keys", bytes), |b| {
            b.iter(|| batch.iter().map(|record| record.key.map_or(0, <[u8]>::len)).sum::<usize>());
        });
        group.bench_function(BenchmarkId::new("all", bytes), |b| {
            b.iter(|| {
                let value = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
                batch
                    .iter()
                    .map(|record| value(record.value()) + record.headers().map(|h| value(h.value)).sum::<usize>())
                    .sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("walk_and_keys", bytes), |b| {
            b.iter(|| opened(&plain).iter().filter(|record| record.key.is_some()).count());
        });
        let lz4 = sealed(&payload(bytes), Compression::Lz4);
        group.bench_function(BenchmarkId::new("lz4_and_keys", bytes), |b| {
            b.iter(|| opened(&lz4).iter().filter(|record| record.key.is_some()).count());
        });
    }
    group.finish();
}

/// Outcomes that nobody needs.
struct Nobody;

impl AckSink for Nobody {
    fn on_acks(&self, group: &AckGroup<'_>) {
        black_box(group.tickets.len());
    }
    fn flush(&self) {}
}

/// Append, outcome, and the way through a tail, on the memory journal.
fn memory_journal(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let log = SharedLog::new(FaultPlan::default(), Limits::default());
    let spec = TopicSpec { name: "t".into(), partitions: 8, replication_factor: None, configs: vec![] };
    log.with(|log| log.create(std::slice::from_ref(&spec))).expect("it is created");
    let journal = runtime.block_on(async { MemoryJournal::open(&log, vec![spec.name], Arc::new(Nobody)) });
    let mut tail = journal.tail(Isolation::ReadCommitted);
    for number in 0..8 {
        tail.follow(Partition { number, ..PARTITION }, Offset(0));
    }
    let value = payload(500);
    let record = RecordRef { key: Some(b"cars/4711/speed"), value: Some(&value), headers: &[], timestamp_ms: 1 };
    let mut group = c.benchmark_group("memory");
    for burst in [1, 64] {
        group.throughput(Throughput::Elements(burst.into()));
        group.bench_function(BenchmarkId::new("append_ack_tail", burst), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    for sequence in 0..burst {
                        let partition = Partition { number: sequence % 8, ..PARTITION };
                        let ticket = Ticket { owner: 1, sequence: sequence.into() };
                        journal.append(ticket, partition, &record).expect("there is room");
                    }
                    let mut seen = 0;
                    while seen < burst {
                        if let TailEvent::Batch(batch) = tail.next().await {
                            seen += batch.records_count;
                        }
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, read, memory_journal);
criterion_main!(benches);
