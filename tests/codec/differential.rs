//! The codec against two others: `rmqtt-codec` and `mqtt-proto`.
//!
//! An oracle decodes a frame and encodes what it understood; this codec decodes that again. So every field is
//! compared, in both directions. Where they differ, `differences.txt` says why this codec is right to.

use std::collections::BTreeSet;

use bytes::BytesMut;
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::PublishProperties;
use millrace::mqtt::topic::{SharedFilter, check_filter};
use millrace::mqtt::{Packet, ProtocolVersion, ReasonCode, decode};
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
            (Self::RmqttCodec, ProtocolVersion::V5) => {
                through(rmqtt_codec::v5::Codec::new(0, 0), frame, |(packet, _)| packet)
            }
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
        (Ok(ours), Some(theirs)) => match decode::packet(&theirs, known, sender) {
            Ok(theirs) => (without_defaults(theirs) != without_defaults(ours)).then_some("changes"),
            Err(_) => Some("changes"),
        },
    }
}

/// `rmqtt-codec` does not tell a property that has its default value from an absent one.
fn without_defaults(mut packet: Packet<'_>) -> Packet<'_> {
    fn forget<T: PartialEq>(value: &mut Option<T>, default: T) {
        if *value == Some(default) {
            *value = None;
        }
    }
    match &mut packet {
        Packet::Publish(publish) => forget(&mut publish.properties.payload_is_utf8, false),
        Packet::Connect(connect) => {
            let properties = &mut connect.properties;
            forget(&mut properties.session_expiry_s, 0);
            forget(&mut properties.topic_alias_maximum, 0);
            forget(&mut properties.request_response_information, false);
            forget(&mut properties.request_problem_information, true);
            if let Some(will) = &mut connect.will {
                forget(&mut will.delay_s, 0);
                forget(&mut will.properties.payload_is_utf8, false);
            }
        }
        Packet::ConnAck(connack) => {
            let properties = &mut connack.properties;
            forget(&mut properties.topic_alias_maximum, 0);
            forget(&mut properties.retain_available, true);
            forget(&mut properties.wildcard_subscription_available, true);
            forget(&mut properties.subscription_ids_available, true);
            forget(&mut properties.shared_subscription_available, true);
        }
        _ => {}
    }
    packet
}

/// The lines `oracle | difference | file/vector | why`.
fn listed() -> BTreeSet<(String, String, String)> {
    include_str!("differences.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<_> = line.split(" | ").map(str::to_owned).collect();
            let [oracle, kind, vector, _why] = <[String; 4]>::try_from(fields).unwrap();
            (oracle, kind, vector)
        })
        .collect()
}

#[test]
fn vectors_differ_only_as_listed() {
    let mut found = BTreeSet::new();
    for vector in vectors::all().iter().filter(|vector| vector.file != "head") {
        let Some(version) = vector.version.or_else(|| version_in(&vector.bytes)) else { continue };
        for oracle in Oracle::ALL {
            if let Some(kind) = difference(oracle, &vector.bytes, vector.version, vector.sender, version) {
                let vector = format!("{}/{}", vector.file, vector.name);
                found.insert((oracle.name().to_owned(), kind.to_owned(), vector));
            }
        }
    }
    let listed = listed();
    let (new, gone): (Vec<_>, Vec<_>) = (found.difference(&listed).collect(), listed.difference(&found).collect());
    assert!(new.is_empty() && gone.is_empty(), "new: {new:#?}\ngone: {gone:#?}");
}

/// The version that a CONNECT names, if it is one that the oracles have.
fn version_in(connect: &[u8]) -> Option<ProtocolVersion> {
    match (connect.get(4..8)?, connect.get(8)?) {
        (b"MQTT", 4) => Some(ProtocolVersion::V311),
        (b"MQTT", 5) => Some(ProtocolVersion::V5),
        (b"MQIs", _) => Some(ProtocolVersion::V31),
        _ => None,
    }
}

/// Packets that an oracle is known to get wrong.
fn known_difference(oracle: Oracle, packet: &Packet<'_>, version: ProtocolVersion) -> Option<&'static str> {
    match oracle {
        Oracle::RmqttCodec => known_of_rmqtt_codec(packet),
        Oracle::MqttProto => known_of_mqtt_proto(packet, version),
    }
}

fn known_of_rmqtt_codec(packet: &Packet<'_>) -> Option<&'static str> {
    let expires_at_once = match packet {
        Packet::Connect(connect) if connect.client_id.is_empty() && !connect.clean_start => {
            return Some("refuses an empty client id without clean start, which the session answers with 0x85 or 2");
        }
        Packet::Connect(connect) => {
            connect.will.as_ref().is_some_and(|will| will.properties.message_expiry_s == Some(0))
        }
        Packet::Publish(publish) => publish.properties.message_expiry_s == Some(0),
        _ => false,
    };
    expires_at_once.then_some("refuses message expiry 0, which no clause forbids")
}

fn known_of_mqtt_proto(packet: &Packet<'_>, version: ProtocolVersion) -> Option<&'static str> {
    let is_filter = |text: &str| match SharedFilter::parse(text) {
        Ok(None) => check_filter(text).is_ok(),
        Ok(Some(_)) => true,
        Err(_) => false,
    };
    let is_text = |properties: &PublishProperties<'_>, payload| {
        properties.payload_is_utf8 != Some(true) || std::str::from_utf8(payload).is_ok()
    };
    match packet {
        Packet::Publish(publish) if publish.properties.subscription_ids.iter().count() > 1 => {
            Some("knows one subscription identifier only (§3.3.2.3.8)")
        }
        Packet::Publish(publish) if !is_text(&publish.properties, publish.payload) => {
            Some("checks the payload against payload format 1, which a receiver may (§3.3.2.3.2)")
        }
        Packet::Connect(connect)
            if connect.will.as_ref().is_some_and(|will| !is_text(&will.properties, will.payload)) =>
        {
            Some("checks the will payload against payload format 1, which a server may (§3.1.3.2.3)")
        }
        Packet::Subscribe(subscribe) if !subscribe.filters.iter().all(|filter| is_filter(filter.filter)) => {
            Some("refuses an invalid filter, which the session answers with 0x8F (§3.9.3)")
        }
        Packet::Unsubscribe(unsubscribe) if !unsubscribe.filters.iter().all(|filter| is_filter(filter)) => {
            Some("refuses an invalid filter, which the session answers with 0x8F (§3.11.3)")
        }
        Packet::SubAck(suback)
            if version != ProtocolVersion::V5 && suback.reasons.contains(&ReasonCode::UnspecifiedError) =>
        {
            Some("writes the failure of 3.1.1 as 3 (MQTT 3.1.1 §3.9.3)")
        }
        Packet::Disconnect(disconnect) if disconnect.reason == ReasonCode::BadAuthenticationMethod => {
            Some("does not know 0x8C in DISCONNECT (§2.4)")
        }
        _ => None,
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
                assert!(known_difference(oracle, &packet, version).is_some(), "{} {kind} {packet:?}", oracle.name());
            }
        }
    }
}
