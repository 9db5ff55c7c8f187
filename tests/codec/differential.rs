//! The codec against two others: `rmqtt-codec` and `mqtt-proto`.
//!
//! An oracle decodes a frame and encodes what it understood; this codec decodes that again. So every field is
//! compared, in both directions. Where they differ, `differences.txt` says why this codec is right to.

use std::collections::BTreeMap;

use bytes::BytesMut;
use millrace::mqtt::head::Sender;
use millrace::mqtt::{Packet, ProtocolVersion, decode};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use super::checks::{encoded, version_before};
use super::generate::{self, Pool, Source};
use super::vectors;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Oracle {
    RmqttCodec,
    MqttProto,
}

impl Oracle {
    const ALL: [Self; 2] = [Self::RmqttCodec, Self::MqttProto];

    fn name(self) -> &'static str {
        match self {
            Self::RmqttCodec => "rmqtt-codec",
            Self::MqttProto => "mqtt-proto",
        }
    }

    /// The frame as the oracle writes it after reading it; `None` if it refuses it.
    fn again(self, frame: &[u8], version: ProtocolVersion) -> Option<Vec<u8>> {
        match (self, version) {
            (Self::RmqttCodec, ProtocolVersion::V5) => through(rmqtt_codec::v5::Codec::new(0, 0), frame, |(packet, _)| packet),
            (Self::RmqttCodec, _) => through(rmqtt_codec::v3::Codec::new(0), frame, |(packet, _)| packet),
            (Self::MqttProto, ProtocolVersion::V5) => {
                let packet = mqtt_proto::v5::Packet::decode(frame).ok()??;
                Some(packet.encode().ok()?.as_ref().to_vec())
            }
            (Self::MqttProto, _) => {
                let packet = mqtt_proto::v3::Packet::decode(frame).ok()??;
                Some(packet.encode().ok()?.as_ref().to_vec())
            }
        }
    }
}

fn through<C: Decoder + Encoder<P>, P>(mut codec: C, frame: &[u8], packet: fn(C::Item) -> P) -> Option<Vec<u8>> {
    let mut buffer = BytesMut::from(frame);
    let decoded = codec.decode(&mut buffer).ok()??;
    let mut out = BytesMut::new();
    codec.encode(packet(decoded), &mut out).ok()?;
    Some(out.to_vec())
}

/// How this codec and the oracle differ over a frame, if they do.
fn difference(
    oracle: Oracle,
    frame: &[u8],
    known: Option<ProtocolVersion>,
    sender: Sender,
    version: ProtocolVersion,
) -> Option<&'static str> {
    let ours = decode::packet(frame, known, sender);
    match (ours, oracle.again(frame, version)) {
        (Ok(_), None) => Some("refuses"),
        (Err(_), Some(_)) => Some("accepts"),
        (Err(_), None) => None,
        (Ok(ours), Some(theirs)) => (decode::packet(&theirs, known, sender) != Ok(ours)).then_some("changes"),
    }
}

#[test]
fn vectors_differ_only_as_listed() {
    let mut found = BTreeMap::new();
    for vector in vectors::all().iter().filter(|vector| vector.file != "head") {
        let version = vector.version.or_else(|| version_in(&vector.bytes));
        let Some(version) = version else { continue };
        for oracle in Oracle::ALL {
            if let Some(kind) = difference(oracle, &vector.bytes, vector.version, vector.sender, version) {
                println!("{} | {kind} | {}/{} | {}", oracle.name(), vector.file, vector.name, vector.clause);
                found.insert((oracle.name(), format!("{}/{}", vector.file, vector.name)), kind);
            }
        }
    }
    panic!("{}", found.len());
}

/// The version that a CONNECT names, if it is one that the oracles have.
fn version_in(connect: &[u8]) -> Option<ProtocolVersion> {
    match connect.get(8)? {
        3 => Some(ProtocolVersion::V31),
        4 => Some(ProtocolVersion::V311),
        5 => Some(ProtocolVersion::V5),
        _ => (connect.get(2..10)? == b"\x00\x06MQIsdp").then_some(ProtocolVersion::V31),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn generated_packets_mean_the_same_to_all(
        seed in prop::collection::vec(any::<u8>(), 0..300), is_v5: bool, is_client: bool,
    ) {
        let version = if is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let sender = if is_client { Sender::Client } else { Sender::Server };
        let mut source = Source::new(&seed);
        let pool = Pool::new(&mut source);
        let packet = generate::packet(&mut source, &pool, version, sender);
        let frame = encoded(&packet, version);
        for oracle in Oracle::ALL {
            if let Some(kind) = difference(oracle, &frame, version_before(&packet, version), sender, version) {
                assert!(is_known(oracle, &packet), "{} {kind} {packet:?}", oracle.name());
            }
        }
    }
}

fn is_known(_oracle: Oracle, _packet: &Packet<'_>) -> bool {
    false
}
