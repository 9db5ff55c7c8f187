//! PUBLISH with QoS 1, a topic of 30 bytes and a payload of 500: decoding, encoding, sizes, and what a small answer
//! costs. `make bench ARGS="--bench codec"`.

#![expect(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{Ack, PublishProperties, ReasonProperties};
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, ReasonCode, decode, encode};

const TOPIC: &str = "plant/7/line/3/sensor/pressure";
const PAIRS: &[(&str, &str)] = &[("trace", "0af7651916cd43dd8448eb211c80319c"), ("unit", "celsius")];

/// Name, version and properties of the messages measured.
fn messages() -> [(&'static str, ProtocolVersion, PublishProperties<'static>); 3] {
    let properties = PublishProperties {
        message_expiry_s: Some(3600),
        content_type: Some("application/json"),
        user_properties: UserProperties::Pairs(PAIRS),
        ..PublishProperties::default()
    };
    [
        ("3.1.1", ProtocolVersion::V311, PublishProperties::default()),
        ("5", ProtocolVersion::V5, PublishProperties::default()),
        ("5 with expiry, content type, 2 user properties", ProtocolVersion::V5, properties),
    ]
}

fn publish(properties: PublishProperties<'static>) -> Publish<'static> {
    assert_eq!(TOPIC.len(), 30);
    let delivery = Delivery::AtLeastOnce(PacketId::new(1234).unwrap());
    Publish { dup: false, delivery, retain: false, topic: TOPIC, properties, payload: &[0x2A; 500] }
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode PUBLISH");
    for (name, version, properties) in messages() {
        let mut frame = BytesMut::new();
        encode::publish(&publish(properties), version, usize::MAX, &mut frame).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| decode::packet(black_box(&frame), Some(black_box(version)), Sender::Client));
        });
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode PUBLISH");
    for (name, version, properties) in messages() {
        let message = publish(properties);
        let mut out = BytesMut::with_capacity(4096);
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode::publish(black_box(&message), black_box(version), 1 << 20, &mut out)
            });
        });
        group.bench_function(format!("{name}, size only"), |b| {
            b.iter(|| encode::publish_bytes(black_box(&message), black_box(version)));
        });
    }
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("the payload's copy alone", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&[0x2A; 500]));
        });
    });
    group.finish();
}

fn acknowledging(c: &mut Criterion) {
    let mut group = c.benchmark_group("PUBACK");
    let packet_id = PacketId::new(1234).unwrap();
    let ack = Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() });
    for (name, version) in [("3.1.1", ProtocolVersion::V311), ("5", ProtocolVersion::V5)] {
        let mut out = BytesMut::with_capacity(64);
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| {
                out.clear();
                encode::packet(black_box(&ack), black_box(version), 1 << 20, &mut out)
            });
        });
        let frame = out.clone();
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| decode::packet(black_box(&frame), Some(black_box(version)), Sender::Client));
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, encoding, acknowledging);
criterion_main!(benches);
