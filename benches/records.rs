//! What a record costs: to append, to skip, to read whole. Time per batch; the throughput line is records.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace::journal::kafka::records::{BatchWalk, Compression, OpenBatch};
use millrace::journal::{Batch, Offset, Partition, Ticket, TopicIndex};
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

criterion_group!(benches, append, read);
criterion_main!(benches);
