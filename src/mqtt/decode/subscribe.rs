//! SUBSCRIBE, SUBACK, UNSUBSCRIBE and UNSUBACK (MQTT5 §3.8 to §3.11).

use std::borrow::Cow;

use super::{DecodeError, answer, section};
use crate::mqtt::packet::{
    ProtocolVersion, QoS, ReasonList, ReasonProperties, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscribeOptions, UnsubAck, Unsubscribe,
};
use crate::mqtt::properties::UserProperties;
use crate::mqtt::topic;
use crate::mqtt::wire::Reader;

/// SUBSCRIBE (MQTT5 §3.8).
pub(super) fn subscribe<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let (subscription_id, user_properties) = match version {
        ProtocolVersion::V5 => section::subscribe(body)?,
        ProtocolVersion::V31 | ProtocolVersion::V311 => (None, UserProperties::default()),
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        let filter = filter(body, version)?;
        let options = match version {
            ProtocolVersion::V5 => options(body.u8()?)?,
            ProtocolVersion::V31 | ProtocolVersion::V311 => options_of_3(body.u8()?)?,
        };
        if options.no_local && topic::is_shared(filter) {
            return Err(DecodeError::protocol("no local on a shared subscription [MQTT-3.8.3-4]"));
        }
        filters.push(SubscribeFilter { filter, options });
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("SUBSCRIBE without a filter [MQTT-3.8.3-2]"));
    }
    Ok(Subscribe { packet_id, subscription_id, user_properties, filters })
}

/// A topic filter. In MQTT 5 its syntax is for the session to judge and answer with 0x8F.
fn filter<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<&'a str, DecodeError> {
    let filter = body.text()?;
    if filter.is_empty() {
        return Err(DecodeError::malformed("an empty topic filter [MQTT-4.7.3-1]"));
    }
    if version != ProtocolVersion::V5 {
        topic::check_filter(filter).map_err(|error| DecodeError::malformed(error.0))?;
    }
    Ok(filter)
}

/// Subscription options (MQTT5 §3.8.3.1).
fn options(byte: u8) -> Result<SubscribeOptions, DecodeError> {
    if byte & 0b1100_0000 != 0 {
        return Err(DecodeError::malformed("reserved subscription options are set [MQTT-3.8.3-5]"));
    }
    let retain_handling = match byte & 0b0011_0000 {
        0b0000_0000 => RetainHandling::Always,
        0b0001_0000 => RetainHandling::IfNew,
        0b0010_0000 => RetainHandling::Never,
        _ => return Err(DecodeError::protocol("retain handling 3 (§3.8.3.1)")),
    };
    let Some(qos) = QoS::from_u8(byte & 0b0000_0011) else {
        return Err(DecodeError::protocol("maximum QoS 3 (§3.8.3.1)"));
    };
    let no_local = byte & 0b0000_0100 != 0;
    let retain_as_published = byte & 0b0000_1000 != 0;
    Ok(SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
}

/// The requested QoS of 3.x, alone in its byte [MQTT-3.8.3-4 of 3.1.1].
fn options_of_3(byte: u8) -> Result<SubscribeOptions, DecodeError> {
    match QoS::from_u8(byte) {
        Some(qos) => Ok(SubscribeOptions { qos, ..SubscribeOptions::default() }),
        None => Err(DecodeError::malformed("no requested QoS [MQTT-3.8.3-4 of 3.1.1]")),
    }
}

/// SUBACK (MQTT5 §3.9). 3.1 has no failure, but its servers send the 0x80 of 3.1.1.
pub(super) fn suback<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<SubAck<'a>, DecodeError> {
    const WHAT: &str = "no reason code of a SUBACK [MQTT-3.9.3-2]";
    let packet_id = body.packet_id()?;
    let (properties, reasons) = match version {
        ProtocolVersion::V5 => {
            let is_legal = |code| matches!(code, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2);
            (section::reason(body)?, reasons(body, is_legal, WHAT)?)
        }
        ProtocolVersion::V31 | ProtocolVersion::V311 => {
            (ReasonProperties::default(), reasons(body, |code| matches!(code, 0..=2 | 0x80), WHAT)?)
        }
    };
    Ok(SubAck { packet_id, properties, reasons })
}

/// At least one reason code, to the end of the packet.
fn reasons<'a>(
    body: &mut Reader<'a>,
    is_legal: fn(u8) -> bool,
    what: &'static str,
) -> Result<ReasonList<'a>, DecodeError> {
    let codes = body.rest();
    *body = Reader::new(&[]);
    if codes.is_empty() {
        return Err(DecodeError::protocol("an acknowledgement without a reason code (§3.9.3, §3.11.3)"));
    }
    codes.iter().map(|code| answer::reason(*code, is_legal, what)).collect::<Result<Vec<_>, _>>().map(Cow::Owned)
}

/// UNSUBSCRIBE (MQTT5 §3.10).
pub(super) fn unsubscribe<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let user_properties = match version {
        ProtocolVersion::V5 => section::unsubscribe(body)?,
        ProtocolVersion::V31 | ProtocolVersion::V311 => UserProperties::default(),
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(filter(body, version)?);
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("UNSUBSCRIBE without a filter [MQTT-3.10.3-2]"));
    }
    Ok(Unsubscribe { packet_id, user_properties, filters })
}

/// UNSUBACK (MQTT5 §3.11); in 3.x it is the packet id alone.
pub(super) fn unsuback<'a>(body: &mut Reader<'a>, version: ProtocolVersion) -> Result<UnsubAck<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let (properties, reasons) = match version {
        ProtocolVersion::V5 => {
            let is_legal = |code| matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91);
            (section::reason(body)?, reasons(body, is_legal, "no reason code of an UNSUBACK [MQTT-3.11.3-2]")?)
        }
        ProtocolVersion::V31 | ProtocolVersion::V311 => (ReasonProperties::default(), Cow::Borrowed(&[][..])),
    };
    Ok(UnsubAck { packet_id, properties, reasons })
}
