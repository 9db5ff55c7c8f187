//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH (MQTT5 §3.4 to §3.7, §3.14, §3.15).

use super::DecodeError;
use super::section::{self, AuthProperties, DisconnectProperties};
use crate::mqtt::head::Sender;
use crate::mqtt::packet::{Ack, Auth, Disconnect, ProtocolVersion, ReasonProperties};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire::Reader;

/// The four acknowledgements. In MQTT 5 a success without properties is the packet id alone, and any reason may
/// stand without a property length (§3.4.2.1, §3.4.2.2.1). `is_legal` tells the reasons of the packet type.
#[inline]
pub(super) fn ack<'a>(
    body: &mut Reader<'a>,
    version: ProtocolVersion,
    is_legal: fn(u8) -> bool,
) -> Result<Ack<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    if version != ProtocolVersion::V5 || body.is_empty() {
        return Ok(Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() });
    }
    let reason = reason(body.u8()?, is_legal, "no reason code of this acknowledgement [MQTT-3.4.2-1]")?;
    let properties = if body.is_empty() { ReasonProperties::default() } else { section::reason(body)? };
    Ok(Ack { packet_id, reason, properties })
}

/// A reason of PUBACK and PUBREC (MQTT5 §3.4.2.1, §3.5.2.1).
pub(super) const fn is_publish_reason(code: u8) -> bool {
    matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
}

/// A reason of PUBREL and PUBCOMP (MQTT5 §3.6.2.1, §3.7.2.1).
pub(super) const fn is_release_reason(code: u8) -> bool {
    matches!(code, 0x00 | 0x92)
}

/// A reason code that the packet knows.
#[inline]
pub(super) fn reason(code: u8, is_legal: fn(u8) -> bool, what: &'static str) -> Result<ReasonCode, DecodeError> {
    match ReasonCode::from_u8(code) {
        Some(reason) if is_legal(code) => Ok(reason),
        Some(_) | None => Err(DecodeError::protocol(what)),
    }
}

/// DISCONNECT; the head has made sure that it has no body in 3.x.
pub(super) fn disconnect<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<Disconnect<'a>, DecodeError> {
    let is_legal: fn(u8) -> bool = match sender {
        Sender::Client => |code| matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99),
        // 0x8C is in table 2-6 of §2.4 only.
        Sender::Server => |code| matches!(code, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2),
    };
    let code = if body.is_empty() { 0 } else { body.u8()? };
    let reason = reason(code, is_legal, "no reason code of a DISCONNECT from this end [MQTT-3.14.2-1]")?;
    let properties = if body.is_empty() { DisconnectProperties::default() } else { section::disconnect(body, sender)? };
    Ok(Disconnect {
        reason,
        session_expiry_s: properties.session_expiry_s,
        server_reference: properties.server_reference,
        properties: properties.reason,
    })
}

/// AUTH; without a body it is a success without properties (§3.15.2.1).
pub(super) fn auth<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<Auth<'a>, DecodeError> {
    let is_legal: fn(u8) -> bool = match sender {
        Sender::Client => |code| matches!(code, 0x18 | 0x19),
        Sender::Server => |code| matches!(code, 0x00 | 0x18),
    };
    let is_empty = body.is_empty();
    let code = if is_empty { 0 } else { body.u8()? };
    let reason = reason(code, is_legal, "no reason code of an AUTH from this end [MQTT-3.15.2-1]")?;
    let properties = if is_empty { AuthProperties::default() } else { section::auth(body)? };
    Ok(Auth { reason, method: properties.method, data: properties.data, properties: properties.reason })
}
