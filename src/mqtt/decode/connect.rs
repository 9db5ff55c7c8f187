//! CONNECT and CONNACK (MQTT5 §3.1, §3.2).

use super::{DecodeError, check_topic_name, section};
use crate::mqtt::head::{self, Head};
use crate::mqtt::packet::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, ProtocolVersion, PublishProperties, QoS, Will,
};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::wire::{self, Reader};

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// CONNECT (MQTT5 §3.1). An error after the level carries the version to answer in.
pub(super) fn connect(mut body: Reader<'_>, head: Head) -> Result<Connect<'_>, DecodeError> {
    let name = body.binary()?;
    let level = body.u8()?;
    let version = protocol_version(name, level)?;
    let minimal = wire::varint_bytes(u32::try_from(head.body_bytes).unwrap_or(u32::MAX)).saturating_add(1);
    if version == ProtocolVersion::V5 && head.head_bytes != minimal {
        return Err(DecodeError { connect_version: Some(version), ..head::overlong() });
    }
    connect_of(&mut body, version).map_err(|error| DecodeError { connect_version: Some(version), ..error })
}

/// From protocol name and level [MQTT-3.1.2-1, MQTT-3.1.2-2].
///
/// An unknown level is refused in the form that its sender should know: a MQTT 5 CONNACK above level 5, else one of
/// 3.x. The top bit of the level marks a bridge with some brokers. Behind any other name may be anything, so there is
/// no answer.
fn protocol_version(name: &[u8], level: u8) -> Result<ProtocolVersion, DecodeError> {
    let refused = DecodeError::new(
        ReasonCode::UnsupportedProtocolVersion,
        "an unknown protocol name or level [MQTT-3.1.2-1, MQTT-3.1.2-2]",
    );
    match (name, level) {
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V31),
        (b"MQTT", 4) => Ok(ProtocolVersion::V311),
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        (b"MQTT", _) if level & 0x7F >= 5 => Err(DecodeError { connect_version: Some(ProtocolVersion::V5), ..refused }),
        (b"MQIsdp" | b"MQTT", _) => {
            let connect_return_code = ReasonCode::UnsupportedProtocolVersion.connect_return_code();
            Err(DecodeError { connect_version: Some(ProtocolVersion::V311), connect_return_code, ..refused })
        }
        _ => Err(refused),
    }
}

fn connect_of<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<Connect<'a>, DecodeError> {
    let flags = body.u8()?;
    check_flags(flags, version)?;
    let keep_alive_s = body.u16()?;
    let properties = match version {
        ProtocolVersion::V5 => section::connect(body)?,
        ProtocolVersion::V31 | ProtocolVersion::V311 => ConnectProperties::default(),
    };
    let client_id = body.text()?;
    let will = if flags & WILL == 0 { None } else { Some(will(body, flags, version)?) };
    // In 3.1 the Remaining Length takes precedence over these two flags (MQTT 3.1 §3.1).
    let is_present =
        |flag, body: &Reader<'_>| flags & flag != 0 && !(version == ProtocolVersion::V31 && body.is_empty());
    let username = if is_present(USER_NAME, body) { Some(body.text()?) } else { None };
    let password = if is_present(PASSWORD, body) { Some(body.binary()?) } else { None };
    body.expect_end()?;
    let clean_start = flags & CLEAN_START != 0;
    Ok(Connect { version, clean_start, keep_alive_s, client_id, will, username, password, properties })
}

/// The connect flags against each other (MQTT5 §3.1.2.3 to §3.1.2.9).
fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::malformed("will QoS 3 [MQTT-3.1.2-12]"));
    }
    if version != ProtocolVersion::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(DecodeError::malformed("a password without a user name [MQTT-3.1.2-22 of 3.1.1]"));
    }
    // 3.1 has unused bits where later versions have reserved ones (MQTT 3.1 §3.1).
    if version == ProtocolVersion::V31 {
        return Ok(());
    }
    if flags & RESERVED != 0 {
        return Err(DecodeError::malformed("the reserved connect flag is set [MQTT-3.1.2-3]"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::malformed("will QoS or will retain without a will [MQTT-3.1.2-11, MQTT-3.1.2-13]"));
    }
    Ok(())
}

fn will<'a>(body: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Will<'a>, DecodeError> {
    let qos = match flags & WILL_QOS {
        0b0000_0000 => QoS::AtMostOnce,
        0b0000_1000 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    };
    let (delay_s, properties) = match version {
        ProtocolVersion::V5 => section::will(body)?,
        ProtocolVersion::V31 | ProtocolVersion::V311 => (None, PublishProperties::default()),
    };
    let topic = body.text()?;
    check_topic_name(topic)?;
    Ok(Will { qos, retain: flags & WILL_RETAIN != 0, topic, payload: body.binary()?, delay_s, properties })
}

/// CONNACK (MQTT5 §3.2).
pub(super) fn connack<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<ConnAck<'a>, DecodeError> {
    let flags = body.u8()?;
    let code = body.u8()?;
    // The first byte is unused in 3.1 (MQTT 3.1 §3.2).
    if flags > 1 && version != ProtocolVersion::V31 {
        return Err(DecodeError::malformed("reserved connect acknowledge flags are set [MQTT-3.2.2-1]"));
    }
    let session_present = flags == 1 && version != ProtocolVersion::V31;
    let (reason, properties) = match version {
        ProtocolVersion::V5 => {
            let reason = ReasonCode::from_u8(code).filter(|reason| is_connack_reason(*reason));
            (reason, section::connack(body)?)
        }
        ProtocolVersion::V31 | ProtocolVersion::V311 => {
            (ReasonCode::from_connect_return_code(code), ConnAckProperties::default())
        }
    };
    let Some(reason) = reason else {
        return Err(DecodeError::protocol("no reason code of a CONNACK [MQTT-3.2.2-8]"));
    };
    if session_present && reason.is_error() {
        return Err(DecodeError::protocol("a refusal with session present [MQTT-3.2.2-6]"));
    }
    Ok(ConnAck { session_present, reason, properties })
}

/// MQTT5 §3.2.2.2, table 3-1.
const fn is_connack_reason(reason: ReasonCode) -> bool {
    matches!(reason.as_u8(), 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99 | 0x9A | 0x9B | 0x9C | 0x9D | 0x9F)
}
