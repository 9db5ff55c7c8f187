//! Packets as tests write them: what a test does not say has the plainest value.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Will,
};
use millrace::mqtt::properties::UserProperties;

pub(crate) use millrace::mqtt::packet::ProtocolVersion::{V5, V31, V311};

/// The versions with one set of rules.
pub(crate) const V311_AND_V5: [ProtocolVersion; 2] = [V311, V5];
/// Every version.
pub(crate) const ALL_VERSIONS: [ProtocolVersion; 3] = [V31, V311, V5];

/// A clean session, no keep-alive, no will.
pub(crate) fn connect(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A session that outlives its connection: 3.x without the clean flag, 5 for an hour.
pub(crate) fn lasting(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut asked = connect(version, client_id);
    asked.clean_start = false;
    asked.properties.session_expiry_s = (version == V5).then_some(3_600);
    asked
}

/// A will of QoS 1.
pub(crate) fn will<'a>(topic: &'a str, payload: &'a [u8]) -> Will<'a> {
    let properties = PublishProperties::default();
    Will { qos: QoS::AtLeastOnce, retain: false, topic, payload, delay_s: None, properties }
}

/// A PUBLISH of QoS 0.
pub(crate) fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    let properties = PublishProperties::default();
    Publish { dup: false, delivery: Delivery::AtMostOnce, retain: false, topic, properties, payload }
}

/// A PUBLISH of QoS 1.
pub(crate) fn publish_1<'a>(id: u16, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish { delivery: Delivery::AtLeastOnce(packet_id(id)), ..publish(topic, payload) }
}

/// A PUBLISH of QoS 2.
pub(crate) fn publish_2<'a>(id: u16, topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish { delivery: Delivery::ExactlyOnce(packet_id(id)), ..publish(topic, payload) }
}

/// A SUBSCRIBE to one filter.
pub(crate) fn subscribe(id: u16, filter: &str, qos: QoS) -> Packet<'_> {
    subscribe_with(id, None, &[(filter, options(qos))])
}

/// A SUBSCRIBE to several filters.
pub(crate) fn subscribe_with<'a>(
    id: u16,
    subscription_id: Option<u32>,
    filters: &[(&'a str, SubscribeOptions)],
) -> Packet<'a> {
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        subscription_id,
        user_properties: UserProperties::default(),
        filters: filters.iter().map(|&(filter, options)| SubscribeFilter { filter, options }).collect(),
    })
}

/// Nothing but the QoS.
pub(crate) fn options(qos: QoS) -> SubscribeOptions {
    SubscribeOptions { qos, ..SubscribeOptions::default() }
}

/// An UNSUBSCRIBE.
pub(crate) fn unsubscribe<'a>(id: u16, filters: &[&'a str]) -> Packet<'a> {
    let user_properties = UserProperties::default();
    Packet::Unsubscribe(Unsubscribe { packet_id: packet_id(id), user_properties, filters: filters.to_vec() })
}

/// The body of PUBACK, PUBREC, PUBREL and PUBCOMP.
pub(crate) fn ack(id: PacketId) -> Ack<'static> {
    Ack { packet_id: id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}

/// A DISCONNECT.
pub(crate) fn disconnect(reason: ReasonCode) -> Packet<'static> {
    let properties = ReasonProperties::default();
    Packet::Disconnect(Disconnect { reason, session_expiry_s: None, server_reference: None, properties })
}

/// A normal DISCONNECT of MQTT 5 that changes how long the session lasts.
pub(crate) fn disconnect_with_expiry(expiry_s: u32) -> Packet<'static> {
    let (reason, properties) = (ReasonCode::Success, ReasonProperties::default());
    Packet::Disconnect(Disconnect { reason, session_expiry_s: Some(expiry_s), server_reference: None, properties })
}

/// Of a number that is not zero.
pub(crate) fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}
