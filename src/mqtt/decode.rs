//! Bytes → packet: exactly one frame in, one borrowed packet out.
//!
//! What is not decided here, because it depends on more than the packet: whether an empty or long
//! client id is accepted, whether a topic alias is known, whether a feature is offered, and in
//! MQTT 5 whether the syntax of a topic *filter* is right. A broken filter has its own answer, 0x8F
//! in the SUBACK or UNSUBACK (§3.9.3), so [`packet`] hands it on as long as it is a legal string
//! of at least one character, and the session parses it. 3.x has no such answer and the packet is
//! refused here.
//!
//! Reasons: 0x81 for what cannot be parsed, 0x82 for what can but is not allowed, and the more
//! telling 0x84, 0x90 (topic name), 0x94 (topic alias 0) and 0x95 (too large) where they fit.

mod answer;
mod connect;
mod section;
mod subscribe;

use super::head::{self, Head, PacketType, Sender};
use super::packet::{Delivery, Packet, ProtocolVersion, Publish, PublishProperties};
use super::reason::ReasonCode;
use super::topic;
use super::wire::Reader;

/// Why a packet was refused: the reason code to answer with and what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (reason 0x{:02X})", reason.as_u8())]
pub struct DecodeError {
    /// What a MQTT 5 DISCONNECT or CONNACK says.
    pub reason: ReasonCode,
    /// The field and the fault, with the clause where there is one.
    pub what: &'static str,
    /// For a refused CONNECT: the version whose form of CONNACK the peer understands. `None` where the packet
    /// was no CONNECT or told no version; then the connection is closed without an answer.
    pub connect_version: Option<ProtocolVersion>,
    /// For a refused CONNECT of 3.x: the return code of a CONNACK to send before closing, if the
    /// version allows an answer at all [MQTT-3.1.4-1 of 3.1.1].
    pub connect_return_code: Option<u8>,
}

impl DecodeError {
    #[cold]
    pub(super) const fn new(reason: ReasonCode, what: &'static str) -> Self {
        Self { reason, what, connect_version: None, connect_return_code: None }
    }

    /// The packet cannot be parsed (MQTT5 §1.2, Malformed Packet).
    #[cold]
    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::new(ReasonCode::MalformedPacket, what)
    }

    /// The packet says what it may not say (MQTT5 §1.2, Protocol Error).
    #[cold]
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, what)
    }

    #[cold]
    pub(super) const fn null_character() -> Self {
        Self::malformed("U+0000 in a string [MQTT-1.5.4-2]")
    }
}

/// Decodes exactly one frame (fixed header included). `version` is `None` for the first packet of a
/// connection, which must be CONNECT when the sender is a client.
///
/// # Errors
/// Anything malformed or against the protocol.
#[inline]
pub fn packet(frame: &[u8], version: Option<ProtocolVersion>, sender: Sender) -> Result<Packet<'_>, DecodeError> {
    let Some(head) = head::frame_head(frame, version, sender, usize::MAX)? else {
        return Err(not_one_frame());
    };
    match frame.split_at_checked(head.head_bytes) {
        Some((_, body)) if body.len() == head.body_bytes => match version {
            Some(version) => body_of(head, Reader::new(body), version, sender),
            None => connect::connect(Reader::new(body), head).map(|connect| Packet::Connect(Box::new(connect))),
        },
        Some(_) | None => Err(not_one_frame()),
    }
}

#[cold]
fn not_one_frame() -> DecodeError {
    DecodeError::malformed("the bytes are not exactly one packet")
}

#[inline]
fn body_of(
    head: Head,
    mut body: Reader<'_>,
    version: ProtocolVersion,
    sender: Sender,
) -> Result<Packet<'_>, DecodeError> {
    if head.packet_type == PacketType::Publish {
        return publish(head.first, body, version, sender).map(Packet::Publish);
    }
    let packet = match head.packet_type {
        PacketType::PubAck => Packet::PubAck(answer::ack(&mut body, version, answer::is_publish_reason)?),
        PacketType::PubRec => Packet::PubRec(answer::ack(&mut body, version, answer::is_publish_reason)?),
        PacketType::PubRel => Packet::PubRel(answer::ack(&mut body, version, answer::is_release_reason)?),
        PacketType::PubComp => Packet::PubComp(answer::ack(&mut body, version, answer::is_release_reason)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe::subscribe(&mut body, version)?),
        PacketType::SubAck => Packet::SubAck(subscribe::suback(&mut body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(subscribe::unsubscribe(&mut body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(subscribe::unsuback(&mut body, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(answer::disconnect(&mut body, sender)?),
        PacketType::Auth => Packet::Auth(answer::auth(&mut body, sender)?),
        PacketType::ConnAck => Packet::ConnAck(Box::new(connect::connack(&mut body, version)?)),
        PacketType::Connect | PacketType::Publish => return Err(not_one_frame()),
    };
    body.expect_end()?;
    Ok(packet)
}

/// PUBLISH (MQTT5 §3.3). Allocates nothing.
#[inline]
fn publish(
    first: u8,
    mut body: Reader<'_>,
    version: ProtocolVersion,
    sender: Sender,
) -> Result<Publish<'_>, DecodeError> {
    let topic = body.text_unchecked_for_null()?;
    let delivery = match first & 0b0110 {
        0b0000 => Delivery::AtMostOnce,
        0b0010 => Delivery::AtLeastOnce(body.packet_id()?),
        _ => Delivery::ExactlyOnce(body.packet_id()?),
    };
    let properties = match version {
        ProtocolVersion::V5 => section::publish(&mut body, sender)?,
        ProtocolVersion::V31 | ProtocolVersion::V311 => PublishProperties::default(),
    };
    if !topic.is_empty() || properties.topic_alias.is_none() {
        check_topic_name(topic)?;
    }
    Ok(Publish {
        dup: first & 0b1000 != 0,
        delivery,
        retain: first & 0b0001 != 0,
        topic,
        properties,
        payload: body.rest(),
    })
}

/// The topic of a PUBLISH or a will.
#[inline]
fn check_topic_name(topic: &str) -> Result<(), DecodeError> {
    topic::check_name(topic).map_err(|error| refused_topic_name(topic, error))
}

#[cold]
fn refused_topic_name(topic: &str, error: topic::TopicError) -> DecodeError {
    if topic.is_empty() {
        DecodeError::protocol("an empty topic name without a topic alias (§3.3.2.1) [MQTT-4.7.3-1]")
    } else if topic.contains('\0') {
        DecodeError::null_character()
    } else {
        DecodeError::new(ReasonCode::TopicNameInvalid, error.0)
    }
}
