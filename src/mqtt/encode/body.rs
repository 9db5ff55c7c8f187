//! Everything after the fixed header, for every packet but PUBLISH.

use super::properties::{AuthSection, ConnAckSection, DisconnectSection, ReasonSection, SubscribeSection, section};
use super::sink::Sink;
use super::{EncodeError, Keep};
use crate::mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, ProtocolVersion, ReasonProperties, RetainHandling,
    SubAck, Subscribe, SubscribeOptions, UnsubAck, Unsubscribe,
};
use crate::mqtt::reason::ReasonCode;

/// Writes the body of any packet but PUBLISH, which has its own path.
pub(super) fn write<S: Sink>(
    packet: &Packet<'_>,
    version: ProtocolVersion,
    keep: Keep,
    sink: &mut S,
) -> Result<(), EncodeError> {
    let is_v5 = version == ProtocolVersion::V5;
    match packet {
        Packet::Connect(packet) => connect(packet, version, sink),
        Packet::ConnAck(packet) => connack(packet, version, keep, sink),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            acknowledge(ack, is_v5, keep, sink)
        }
        Packet::Subscribe(packet) => subscribe(packet, is_v5, sink),
        Packet::SubAck(packet) => suback(packet, is_v5, keep, sink),
        Packet::Unsubscribe(packet) => unsubscribe(packet, is_v5, sink),
        Packet::UnsubAck(packet) => unsuback(packet, is_v5, keep, sink),
        Packet::Disconnect(packet) => disconnect(packet, is_v5, keep, sink),
        Packet::Auth(packet) if is_v5 => auth(packet, keep, sink),
        Packet::Auth(_) => Err(EncodeError::Inexpressible("AUTH before MQTT 5 (§3.15)")),
        Packet::PingReq | Packet::PingResp | Packet::Publish(_) => Ok(()),
    }
}

/// CONNECT (MQTT5 §3.1).
fn connect<S: Sink>(packet: &Connect<'_>, version: ProtocolVersion, sink: &mut S) -> Result<(), EncodeError> {
    let is_v5 = version == ProtocolVersion::V5;
    if packet.version != version {
        return Err(EncodeError::Inexpressible("a CONNECT of another version than the connection's"));
    }
    if !is_v5 && packet.password.is_some() && packet.username.is_none() {
        return Err(EncodeError::Inexpressible("a password without a user name [MQTT-3.1.2-22 of 3.1.1]"));
    }
    sink.text("the protocol name", version.name());
    sink.u8(version.level());
    sink.u8(connect_flags(packet));
    sink.u16(packet.keep_alive_s);
    if is_v5 {
        if packet.properties.maximum_packet_bytes == Some(0) {
            return Err(EncodeError::Inexpressible("maximum packet size 0 (§3.1.2.11.4)"));
        }
        section(&packet.properties, sink)?;
    }
    sink.text("the client identifier", packet.client_id);
    if let Some(will) = &packet.will {
        if is_v5 {
            section(will, sink)?;
        }
        sink.text("the will topic", will.topic);
        sink.binary("the will payload", will.payload);
    }
    if let Some(username) = packet.username {
        sink.text("the user name", username);
    }
    if let Some(password) = packet.password {
        sink.binary("the password", password);
    }
    Ok(())
}

/// MQTT5 §3.1.2.3.
fn connect_flags(packet: &Connect<'_>) -> u8 {
    let mut flags = u8::from(packet.clean_start) << 1;
    if let Some(will) = &packet.will {
        flags |= 0b0000_0100 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5;
    }
    flags | u8::from(packet.password.is_some()) << 6 | u8::from(packet.username.is_some()) << 7
}

/// CONNACK (MQTT5 §3.2, MQTT 3.1.1 §3.2); the first byte is unused in 3.1.
fn connack<S: Sink>(
    packet: &ConnAck<'_>,
    version: ProtocolVersion,
    keep: Keep,
    sink: &mut S,
) -> Result<(), EncodeError> {
    let session_present = packet.session_present && version != ProtocolVersion::V31;
    if session_present && packet.reason.is_error() {
        return Err(EncodeError::Inexpressible("a refusal with session present [MQTT-3.2.2-6]"));
    }
    sink.u8(u8::from(session_present));
    if version == ProtocolVersion::V5 {
        if packet.properties.maximum_packet_bytes == Some(0) {
            return Err(EncodeError::Inexpressible("maximum packet size 0 (§3.2.2.3.6)"));
        }
        sink.u8(packet.reason.as_u8());
        return section(&ConnAckSection(&packet.properties, keep), sink);
    }
    match packet.reason.connect_return_code() {
        Some(code) => sink.u8(code),
        None => return Err(EncodeError::Inexpressible("no return code of 3.x fits: close without CONNACK (§3.2.2.3)")),
    }
    Ok(())
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP in their shortest form (MQTT5 §3.4.2.1); the packet id alone in 3.x.
fn acknowledge<S: Sink>(ack: &Ack<'_>, is_v5: bool, keep: Keep, sink: &mut S) -> Result<(), EncodeError> {
    sink.u16(ack.packet_id.get());
    let properties = ReasonSection(&ack.properties, keep);
    let has_properties = is_v5 && !properties.is_empty();
    if is_v5 && (has_properties || ack.reason != ReasonCode::Success) {
        sink.u8(ack.reason.as_u8());
    }
    if has_properties { section(&properties, sink) } else { Ok(()) }
}

/// SUBSCRIBE (MQTT5 §3.8).
fn subscribe<S: Sink>(packet: &Subscribe<'_>, is_v5: bool, sink: &mut S) -> Result<(), EncodeError> {
    if packet.filters.is_empty() {
        return Err(EncodeError::Inexpressible("SUBSCRIBE without a filter [MQTT-3.8.3-2]"));
    }
    if packet.subscription_id == Some(0) {
        return Err(EncodeError::Inexpressible("subscription identifier 0 (§3.8.2.1.2)"));
    }
    sink.u16(packet.packet_id.get());
    if is_v5 {
        section(&SubscribeSection(packet), sink)?;
    }
    for filter in &packet.filters {
        sink.text("the topic filter", filter.filter);
        sink.u8(if is_v5 { options(filter.options) } else { filter.options.qos.as_u8() });
    }
    Ok(())
}

/// MQTT5 §3.8.3.1.
fn options(options: SubscribeOptions) -> u8 {
    let retain_handling = match options.retain_handling {
        RetainHandling::Always => 0,
        RetainHandling::IfNew => 0b0001_0000,
        RetainHandling::Never => 0b0010_0000,
    };
    options.qos.as_u8() | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | retain_handling
}

/// SUBACK (MQTT5 §3.9). Every failure is 0x80 in 3.1.1; 3.1 has none, and its clients know 0x80 from 3.1.1 too.
fn suback<S: Sink>(packet: &SubAck<'_>, is_v5: bool, keep: Keep, sink: &mut S) -> Result<(), EncodeError> {
    acknowledge_filters(packet.packet_id, &packet.properties, is_v5, keep, sink)?;
    if packet.reasons.is_empty() {
        return Err(EncodeError::Inexpressible("SUBACK without a reason code (§3.9.3)"));
    }
    for reason in packet.reasons.iter() {
        let is_failure_of_3 = reason.is_error() && !is_v5;
        sink.u8(if is_failure_of_3 { ReasonCode::UnspecifiedError.as_u8() } else { reason.as_u8() });
    }
    Ok(())
}

/// UNSUBSCRIBE (MQTT5 §3.10).
fn unsubscribe<S: Sink>(packet: &Unsubscribe<'_>, is_v5: bool, sink: &mut S) -> Result<(), EncodeError> {
    if packet.filters.is_empty() {
        return Err(EncodeError::Inexpressible("UNSUBSCRIBE without a filter [MQTT-3.10.3-2]"));
    }
    sink.u16(packet.packet_id.get());
    if is_v5 {
        section(&packet.user_properties, sink)?;
    }
    for filter in &packet.filters {
        sink.text("the topic filter", filter);
    }
    Ok(())
}

/// UNSUBACK (MQTT5 §3.11); without a payload in 3.x.
fn unsuback<S: Sink>(packet: &UnsubAck<'_>, is_v5: bool, keep: Keep, sink: &mut S) -> Result<(), EncodeError> {
    acknowledge_filters(packet.packet_id, &packet.properties, is_v5, keep, sink)?;
    if is_v5 {
        if packet.reasons.is_empty() {
            return Err(EncodeError::Inexpressible("UNSUBACK without a reason code (§3.11.3)"));
        }
        for reason in packet.reasons.iter() {
            sink.u8(reason.as_u8());
        }
    }
    Ok(())
}

/// What SUBACK and UNSUBACK have before their reasons.
fn acknowledge_filters<S: Sink>(
    packet_id: PacketId,
    properties: &ReasonProperties<'_>,
    is_v5: bool,
    keep: Keep,
    sink: &mut S,
) -> Result<(), EncodeError> {
    sink.u16(packet_id.get());
    if is_v5 { section(&ReasonSection(properties, keep), sink) } else { Ok(()) }
}

/// DISCONNECT in its shortest form (MQTT5 §3.14.2.1); without a body in 3.x.
fn disconnect<S: Sink>(packet: &Disconnect<'_>, is_v5: bool, keep: Keep, sink: &mut S) -> Result<(), EncodeError> {
    let properties = DisconnectSection(packet, keep);
    let has_properties = is_v5 && !properties.is_empty();
    if is_v5 && (has_properties || packet.reason != ReasonCode::Success) {
        sink.u8(packet.reason.as_u8());
    }
    if has_properties { section(&properties, sink) } else { Ok(()) }
}

/// AUTH (MQTT5 §3.15), which needs a method unless it is empty (§3.15.2.1, §3.15.2.2.2).
fn auth<S: Sink>(packet: &Auth<'_>, keep: Keep, sink: &mut S) -> Result<(), EncodeError> {
    if packet.method.is_none() {
        let is_empty = packet.reason == ReasonCode::Success
            && packet.data.is_none()
            && ReasonSection(&packet.properties, keep).is_empty();
        return if is_empty {
            Ok(())
        } else {
            Err(EncodeError::Inexpressible("AUTH without an authentication method (§3.15.2.2.2)"))
        };
    }
    sink.u8(packet.reason.as_u8());
    section(&AuthSection(packet, keep), sink)
}
