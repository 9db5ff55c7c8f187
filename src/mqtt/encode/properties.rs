//! The property sections of MQTT 5, written (MQTT5 §2.2.2).

use super::sink::{Counter, Sink};
use super::{EncodeError, Keep};
use crate::mqtt::packet::{
    Auth, ConnAckProperties, ConnectProperties, Disconnect, PublishProperties, QoS, ReasonProperties, Subscribe, Will,
};
use crate::mqtt::properties::{UserProperties, id};

/// The properties of one packet.
pub(super) trait PropertySet {
    /// Writes them without their length.
    fn write<S: Sink>(&self, sink: &mut S);
}

/// Writes the length and the properties.
pub(super) fn section<S: Sink, P: PropertySet>(properties: &P, sink: &mut S) -> Result<(), EncodeError> {
    let mut counter = Counter::default();
    properties.write(&mut counter);
    sink.varint(counter.finish()?);
    properties.write(sink);
    Ok(())
}

#[inline]
fn flag<S: Sink>(id: u8, value: Option<bool>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(id);
        sink.u8(u8::from(value));
    }
}

#[inline]
fn number16<S: Sink>(id: u8, value: Option<u16>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(id);
        sink.u16(value);
    }
}

#[inline]
fn number32<S: Sink>(id: u8, value: Option<u32>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(id);
        sink.u32(value);
    }
}

#[inline]
fn text<S: Sink>(id: u8, field: &'static str, value: Option<&str>, sink: &mut S) {
    binary(id, field, value.map(str::as_bytes), sink);
}

#[inline]
fn binary<S: Sink>(id: u8, field: &'static str, value: Option<&[u8]>, sink: &mut S) {
    if let Some(value) = value {
        sink.u8(id);
        sink.binary(field, value);
    }
}

#[inline]
fn users<S: Sink>(properties: &UserProperties<'_>, sink: &mut S) {
    for (name, value) in properties {
        sink.u8(id::USER_PROPERTY);
        sink.text("the name of a user property", name);
        sink.text("the value of a user property", value);
    }
}

#[inline]
fn authentication<S: Sink>(method: Option<&str>, data: Option<&[u8]>, sink: &mut S) {
    text(id::AUTHENTICATION_METHOD, "the authentication method", method, sink);
    binary(id::AUTHENTICATION_DATA, "the authentication data", data, sink);
}

impl PropertySet for PublishProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, sink: &mut S) {
        number16(id::TOPIC_ALIAS, self.topic_alias.map(std::num::NonZeroU16::get), sink);
        for number in &self.subscription_ids {
            sink.u8(id::SUBSCRIPTION_ID);
            sink.varint(number);
        }
        message(self, sink);
    }
}

/// The properties that a PUBLISH and a will share.
#[inline]
fn message<S: Sink>(properties: &PublishProperties<'_>, sink: &mut S) {
    flag(id::PAYLOAD_FORMAT, properties.payload_is_utf8, sink);
    number32(id::MESSAGE_EXPIRY, properties.message_expiry_s, sink);
    text(id::CONTENT_TYPE, "the content type", properties.content_type, sink);
    text(id::RESPONSE_TOPIC, "the response topic", properties.response_topic, sink);
    binary(id::CORRELATION_DATA, "the correlation data", properties.correlation_data, sink);
    users(&properties.user_properties, sink);
}

impl PropertySet for Will<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        number32(id::WILL_DELAY, self.delay_s, sink);
        message(&self.properties, sink);
    }
}

impl PropertySet for ConnectProperties<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        number32(id::SESSION_EXPIRY, self.session_expiry_s, sink);
        number16(id::RECEIVE_MAXIMUM, self.receive_maximum.map(std::num::NonZeroU16::get), sink);
        number32(id::MAXIMUM_PACKET_SIZE, self.maximum_packet_bytes, sink);
        number16(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum, sink);
        flag(id::REQUEST_RESPONSE_INFORMATION, self.request_response_information, sink);
        flag(id::REQUEST_PROBLEM_INFORMATION, self.request_problem_information, sink);
        authentication(self.authentication_method, self.authentication_data, sink);
        users(&self.user_properties, sink);
    }
}

/// CONNACK, possibly shortened.
pub(super) struct ConnAckSection<'a>(pub &'a ConnAckProperties<'a>, pub Keep);

impl PropertySet for ConnAckSection<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        let Self(properties, keep) = self;
        number32(id::SESSION_EXPIRY, properties.session_expiry_s, sink);
        number16(id::RECEIVE_MAXIMUM, properties.receive_maximum.map(std::num::NonZeroU16::get), sink);
        let maximum_qos = properties.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
        flag(id::MAXIMUM_QOS, maximum_qos.map(|qos| qos == QoS::AtLeastOnce), sink);
        flag(id::RETAIN_AVAILABLE, properties.retain_available, sink);
        number32(id::MAXIMUM_PACKET_SIZE, properties.maximum_packet_bytes, sink);
        text(id::ASSIGNED_CLIENT_ID, "the assigned client identifier", properties.assigned_client_id, sink);
        number16(id::TOPIC_ALIAS_MAXIMUM, properties.topic_alias_maximum, sink);
        flag(id::WILDCARD_SUBSCRIPTION_AVAILABLE, properties.wildcard_subscription_available, sink);
        flag(id::SUBSCRIPTION_IDS_AVAILABLE, properties.subscription_ids_available, sink);
        flag(id::SHARED_SUBSCRIPTION_AVAILABLE, properties.shared_subscription_available, sink);
        number16(id::SERVER_KEEP_ALIVE, properties.server_keep_alive_s, sink);
        text(id::RESPONSE_INFORMATION, "the response information", properties.response_information, sink);
        text(id::SERVER_REFERENCE, "the server reference", properties.server_reference, sink);
        authentication(properties.authentication_method, properties.authentication_data, sink);
        reason(properties.reason_string, &properties.user_properties, *keep, sink);
    }
}

/// Reason string and user properties, as far as they are kept.
fn reason<S: Sink>(reason_string: Option<&str>, user_properties: &UserProperties<'_>, keep: Keep, sink: &mut S) {
    if keep == Keep::Everything {
        text(id::REASON_STRING, "the reason string", reason_string, sink);
    }
    if keep != Keep::Nothing {
        users(user_properties, sink);
    }
}

/// The answers with nothing but reason string and user properties.
pub(super) struct ReasonSection<'a>(pub &'a ReasonProperties<'a>, pub Keep);

impl ReasonSection<'_> {
    /// Whether nothing would be written.
    pub(super) fn is_empty(&self) -> bool {
        let Self(properties, keep) = self;
        (properties.reason_string.is_none() || *keep != Keep::Everything)
            && (properties.user_properties.is_empty() || *keep == Keep::Nothing)
    }
}

impl PropertySet for ReasonSection<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        let Self(properties, keep) = self;
        reason(properties.reason_string, &properties.user_properties, *keep, sink);
    }
}

/// SUBSCRIBE.
pub(super) struct SubscribeSection<'a>(pub &'a Subscribe<'a>);

impl PropertySet for SubscribeSection<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        if let Some(number) = self.0.subscription_id {
            sink.u8(id::SUBSCRIPTION_ID);
            sink.varint(number);
        }
        users(&self.0.user_properties, sink);
    }
}

impl PropertySet for UserProperties<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        users(self, sink);
    }
}

/// DISCONNECT, possibly shortened.
pub(super) struct DisconnectSection<'a>(pub &'a Disconnect<'a>, pub Keep);

impl DisconnectSection<'_> {
    /// Whether nothing would be written.
    pub(super) fn is_empty(&self) -> bool {
        let Self(packet, keep) = self;
        packet.session_expiry_s.is_none()
            && packet.server_reference.is_none()
            && ReasonSection(&packet.properties, *keep).is_empty()
    }
}

impl PropertySet for DisconnectSection<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        let Self(packet, keep) = self;
        number32(id::SESSION_EXPIRY, packet.session_expiry_s, sink);
        text(id::SERVER_REFERENCE, "the server reference", packet.server_reference, sink);
        ReasonSection(&packet.properties, *keep).write(sink);
    }
}

/// AUTH, possibly shortened.
pub(super) struct AuthSection<'a>(pub &'a Auth<'a>, pub Keep);

impl PropertySet for AuthSection<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        let Self(packet, keep) = self;
        authentication(packet.method, packet.data, sink);
        ReasonSection(&packet.properties, *keep).write(sink);
    }
}
