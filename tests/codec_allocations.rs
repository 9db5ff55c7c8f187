//! Decoding a PUBLISH and encoding into a buffer with room allocate nothing.
//!
//! A test binary of its own, because counting takes the global allocator.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use allocation_counter::measure;
use bytes::BytesMut;
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{Ack, PublishProperties, ReasonProperties};
use millrace::mqtt::properties::{SubscriptionIds, UserProperties};
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, ReasonCode, decode, encode};

const PAIRS: &[(&str, &str)] = &[("trace", "0af7651916cd43dd8448eb211c80319c"), ("unit", "celsius")];

fn publish(version: ProtocolVersion) -> Publish<'static> {
    let properties = PublishProperties {
        message_expiry_s: Some(3600),
        content_type: Some("application/json"),
        response_topic: Some("replies/to/me"),
        user_properties: UserProperties::Pairs(PAIRS),
        subscription_ids: SubscriptionIds::List(&[1, 300]),
        ..PublishProperties::default()
    };
    Publish {
        dup: false,
        delivery: Delivery::AtLeastOnce(PacketId::new(7).unwrap()),
        retain: false,
        topic: "plant/7/line/3/sensor/pressure",
        properties: if version == ProtocolVersion::V5 { properties } else { PublishProperties::default() },
        payload: &[0x2A; 500],
    }
}

#[test]
fn a_publish_is_decoded_walked_and_encoded_without_allocating() {
    for version in [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut frame = BytesMut::new();
        encode::publish(&publish(version), version, usize::MAX, &mut frame).unwrap();
        let mut out = BytesMut::with_capacity(2 * frame.len());
        let info = measure(|| {
            let packet = decode::packet(&frame, Some(version), Sender::Server).unwrap();
            let Packet::Publish(publish) = &packet else { panic!("a PUBLISH was written") };
            let pairs = publish.properties.user_properties.iter().count();
            let ids = publish.properties.subscription_ids.iter().count();
            assert_eq!((pairs, ids), if version == ProtocolVersion::V5 { (2, 2) } else { (0, 0) });
            encode::packet(&packet, version, usize::MAX, &mut out).unwrap();
        });
        assert_eq!(info.count_total, 0, "{version:?}");
        assert_eq!(out.len(), frame.len());
    }
}

#[test]
fn an_acknowledgement_is_decoded_and_encoded_without_allocating() {
    let packet_id = PacketId::new(1).unwrap();
    let ack = Packet::PubAck(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() });
    let mut out = BytesMut::with_capacity(64);
    let info = measure(|| {
        encode::packet(&ack, ProtocolVersion::V5, usize::MAX, &mut out).unwrap();
        assert_eq!(decode::packet(&out, Some(ProtocolVersion::V5), Sender::Client), Ok(ack.clone()));
    });
    assert_eq!(info.count_total, 0);
}

/// A refused packet costs no memory either, whatever length it declares.
#[test]
fn a_refusal_allocates_nothing() {
    let frames: [&[u8]; 4] = [b"\x30\xFF\xFF\xFF\x7F", b"\x82\x05\x00\x01\x00\xFF\xFF", b"\x30\x03\x00\x01+", b"\x00"];
    for frame in frames {
        let info = measure(|| {
            assert!(decode::packet(frame, Some(ProtocolVersion::V5), Sender::Client).is_err());
        });
        assert_eq!(info.count_total, 0, "{frame:x?}");
    }
}
