//! The property section of each packet of MQTT 5 in one validating pass (MQTT5 §2.2.2).

use std::num::NonZeroU16;

use super::DecodeError;
use crate::mqtt::head::Sender;
use crate::mqtt::packet::{ConnAckProperties, ConnectProperties, PublishProperties, QoS, ReasonProperties};
use crate::mqtt::properties::{SubscriptionIds, UserProperties, id};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::mqtt::wire::Reader;

/// A set of property identifiers; bit n is identifier n, of which the largest is 0x2A.
#[derive(Clone, Copy)]
struct Ids(u64);

impl Ids {
    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut rest = ids;
        while let [id, tail @ ..] = rest {
            bits |= Self::bit(*id);
            rest = tail;
        }
        Self(bits)
    }

    const fn bit(id: u8) -> u64 {
        if id < 64 { 1_u64.wrapping_shl(id as u32) } else { 0 }
    }

    const fn without(self, id: u8) -> Self {
        Self(self.0 & !Self::bit(id))
    }
}

const USER: Ids = Ids::of(&[id::USER_PROPERTY]);
const USER_AND_SUBSCRIPTION_ID: Ids = Ids::of(&[id::USER_PROPERTY, id::SUBSCRIPTION_ID]);
const NONE: Ids = Ids(0);

/// A property section while it is read.
struct Section<'a> {
    raw: &'a [u8],
    rest: Reader<'a>,
    allowed: Ids,
    /// Allowed in this packet, but not from this sender.
    not_from_sender: Ids,
    repeatable: Ids,
    seen: Ids,
}

impl<'a> Section<'a> {
    /// Cuts the section off the front of `body`.
    #[inline]
    fn open(body: &mut Reader<'a>, allowed: Ids, repeatable: Ids) -> Result<Self, DecodeError> {
        let bytes = usize::try_from(body.varint()?).unwrap_or(usize::MAX);
        let raw = body.take(bytes)?;
        Ok(Self { raw, rest: Reader::new(raw), allowed, not_from_sender: NONE, repeatable, seen: NONE })
    }

    /// The next identifier, known to be allowed here and now.
    #[inline]
    fn next(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let id = self.rest.u8()?;
        let bit = Ids::bit(id);
        if self.allowed.0 & bit == 0 {
            return Err(self.not_allowed(bit));
        }
        if self.seen.0 & bit & !self.repeatable.0 != 0 {
            return Err(DecodeError::protocol("a property twice (§2.2.2)"));
        }
        self.seen.0 |= bit;
        Ok(Some(id))
    }

    #[cold]
    fn not_allowed(&self, bit: u64) -> DecodeError {
        if self.not_from_sender.0 & bit == 0 {
            DecodeError::malformed("a property that is unknown or not of this packet (§2.2.2.2)")
        } else {
            DecodeError::protocol("a property that this end may not send [MQTT-3.3.4-6, MQTT-3.14.2-2]")
        }
    }

    /// A byte that is a truth value.
    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.rest.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol("a property that is 0 or 1 has another value (§2.2.2.2)")),
        }
    }

    fn non_zero_u16(&mut self, error: DecodeError) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.rest.u16()?).ok_or(error)
    }

    fn subscription_id(&mut self) -> Result<u32, DecodeError> {
        match self.rest.varint()? {
            0 => Err(DecodeError::protocol("subscription identifier 0 (§3.8.2.1.2)")),
            number => Ok(number),
        }
    }

    /// One user property; [`Section::user_properties`] hands out all of them.
    #[inline]
    fn user_property(&mut self) -> Result<(), DecodeError> {
        self.rest.text()?;
        self.rest.text().map(drop)
    }

    #[inline]
    fn user_properties(&self) -> UserProperties<'a> {
        if self.seen.0 & USER.0 == 0 { UserProperties::default() } else { UserProperties::Raw(self.raw) }
    }

    #[inline]
    fn subscription_ids(&self) -> SubscriptionIds<'a> {
        if self.seen.0 & Ids::bit(id::SUBSCRIPTION_ID) == 0 {
            SubscriptionIds::default()
        } else {
            SubscriptionIds::Raw(self.raw)
        }
    }

    /// Authentication data needs a method (MQTT5 §3.1.2.11.10).
    fn expect_method_with_data(&self) -> Result<(), DecodeError> {
        let has = |id| self.seen.0 & Ids::bit(id) != 0;
        if has(id::AUTHENTICATION_DATA) && !has(id::AUTHENTICATION_METHOD) {
            return Err(DecodeError::protocol("authentication data without a method (§3.1.2.11.10)"));
        }
        Ok(())
    }
}

/// The match arms of a section end here: [`Section::next`] has let through what no arm takes.
#[cold]
fn no_arm() -> DecodeError {
    DecodeError::malformed("a property that is not of this packet (§2.2.2.2)")
}

fn response_topic<'a>(section: &mut Section<'a>) -> Result<&'a str, DecodeError> {
    let text = section.rest.text()?;
    topic::check_name(text).map_err(|_| DecodeError::protocol("a response topic that is no topic [MQTT-3.3.2-14]"))?;
    Ok(text)
}

const PUBLISH: Ids = Ids::of(&[
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::SUBSCRIPTION_ID,
    id::CONTENT_TYPE,
]);

/// Properties of PUBLISH (MQTT5 §3.3.2.3).
#[inline]
pub(super) fn publish<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<PublishProperties<'a>, DecodeError> {
    let mut section = Section::open(body, PUBLISH, USER_AND_SUBSCRIPTION_ID)?;
    let mut properties = PublishProperties::default();
    if section.rest.is_empty() {
        return Ok(properties);
    }
    if sender == Sender::Client {
        section.allowed = PUBLISH.without(id::SUBSCRIPTION_ID);
        section.not_from_sender = USER_AND_SUBSCRIPTION_ID;
    }
    while let Some(id) = section.next()? {
        match id {
            id::SUBSCRIPTION_ID => drop(section.subscription_id()?),
            id::TOPIC_ALIAS => {
                let zero = DecodeError::new(ReasonCode::TopicAliasInvalid, "topic alias 0 [MQTT-3.3.2-8]");
                properties.topic_alias = Some(section.non_zero_u16(zero)?);
            }
            _ => message_property(&mut section, id, &mut properties)?,
        }
    }
    properties.user_properties = section.user_properties();
    properties.subscription_ids = section.subscription_ids();
    Ok(properties)
}

const WILL: Ids = Ids::of(&[
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);

/// Will delay and the properties of the will message (MQTT5 §3.1.3.2).
pub(super) fn will<'a>(body: &mut Reader<'a>) -> Result<(Option<u32>, PublishProperties<'a>), DecodeError> {
    let mut section = Section::open(body, WILL, USER)?;
    let mut delay_s = None;
    let mut properties = PublishProperties::default();
    while let Some(id) = section.next()? {
        match id {
            id::WILL_DELAY => delay_s = Some(section.rest.u32()?),
            _ => message_property(&mut section, id, &mut properties)?,
        }
    }
    properties.user_properties = section.user_properties();
    Ok((delay_s, properties))
}

/// The properties that a PUBLISH and a will share.
#[inline]
fn message_property<'a>(
    section: &mut Section<'a>,
    id: u8,
    properties: &mut PublishProperties<'a>,
) -> Result<(), DecodeError> {
    match id {
        id::PAYLOAD_FORMAT => properties.payload_is_utf8 = Some(section.flag()?),
        id::MESSAGE_EXPIRY => properties.message_expiry_s = Some(section.rest.u32()?),
        id::CONTENT_TYPE => properties.content_type = Some(section.rest.text()?),
        id::RESPONSE_TOPIC => properties.response_topic = Some(response_topic(section)?),
        id::CORRELATION_DATA => properties.correlation_data = Some(section.rest.binary()?),
        id::USER_PROPERTY => section.user_property()?,
        _ => return Err(no_arm()),
    }
    Ok(())
}

const CONNECT: Ids = Ids::of(&[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);

/// Properties of CONNECT (MQTT5 §3.1.2.11).
pub(super) fn connect<'a>(body: &mut Reader<'a>) -> Result<ConnectProperties<'a>, DecodeError> {
    let mut section = Section::open(body, CONNECT, USER)?;
    let mut properties = ConnectProperties::default();
    while let Some(id) = section.next()? {
        match id {
            id::SESSION_EXPIRY => properties.session_expiry_s = Some(section.rest.u32()?),
            id::RECEIVE_MAXIMUM => properties.receive_maximum = Some(receive_maximum(&mut section)?),
            id::MAXIMUM_PACKET_SIZE => properties.maximum_packet_bytes = Some(maximum_packet_bytes(&mut section)?),
            id::TOPIC_ALIAS_MAXIMUM => properties.topic_alias_maximum = Some(section.rest.u16()?),
            id::REQUEST_RESPONSE_INFORMATION => properties.request_response_information = Some(section.flag()?),
            id::REQUEST_PROBLEM_INFORMATION => properties.request_problem_information = Some(section.flag()?),
            id::AUTHENTICATION_METHOD => properties.authentication_method = Some(section.rest.text()?),
            id::AUTHENTICATION_DATA => properties.authentication_data = Some(section.rest.binary()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    section.expect_method_with_data()?;
    properties.user_properties = section.user_properties();
    Ok(properties)
}

fn receive_maximum(section: &mut Section<'_>) -> Result<NonZeroU16, DecodeError> {
    section.non_zero_u16(DecodeError::protocol("receive maximum 0 (§3.1.2.11.3, §3.2.2.3.3)"))
}

fn maximum_packet_bytes(section: &mut Section<'_>) -> Result<u32, DecodeError> {
    match section.rest.u32()? {
        0 => Err(DecodeError::protocol("maximum packet size 0 (§3.1.2.11.4, §3.2.2.3.6)")),
        bytes => Ok(bytes),
    }
}

const CONNACK: Ids = Ids::of(&[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::MAXIMUM_PACKET_SIZE,
    id::ASSIGNED_CLIENT_ID,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REASON_STRING,
    id::USER_PROPERTY,
    id::WILDCARD_SUBSCRIPTION_AVAILABLE,
    id::SUBSCRIPTION_IDS_AVAILABLE,
    id::SHARED_SUBSCRIPTION_AVAILABLE,
    id::SERVER_KEEP_ALIVE,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);

/// Properties of CONNACK (MQTT5 §3.2.2.3).
pub(super) fn connack<'a>(body: &mut Reader<'a>) -> Result<ConnAckProperties<'a>, DecodeError> {
    let mut section = Section::open(body, CONNACK, USER)?;
    let mut properties = ConnAckProperties::default();
    while let Some(id) = section.next()? {
        match id {
            id::SESSION_EXPIRY => properties.session_expiry_s = Some(section.rest.u32()?),
            id::RECEIVE_MAXIMUM => properties.receive_maximum = Some(receive_maximum(&mut section)?),
            id::MAXIMUM_QOS => {
                let qos = if section.flag()? { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                properties.maximum_qos = Some(qos);
            }
            id::RETAIN_AVAILABLE => properties.retain_available = Some(section.flag()?),
            id::MAXIMUM_PACKET_SIZE => properties.maximum_packet_bytes = Some(maximum_packet_bytes(&mut section)?),
            id::ASSIGNED_CLIENT_ID => properties.assigned_client_id = Some(section.rest.text()?),
            id::TOPIC_ALIAS_MAXIMUM => properties.topic_alias_maximum = Some(section.rest.u16()?),
            id::REASON_STRING => properties.reason_string = Some(section.rest.text()?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => properties.wildcard_subscription_available = Some(section.flag()?),
            id::SUBSCRIPTION_IDS_AVAILABLE => properties.subscription_ids_available = Some(section.flag()?),
            id::SHARED_SUBSCRIPTION_AVAILABLE => properties.shared_subscription_available = Some(section.flag()?),
            id::SERVER_KEEP_ALIVE => properties.server_keep_alive_s = Some(section.rest.u16()?),
            id::RESPONSE_INFORMATION => properties.response_information = Some(section.rest.text()?),
            id::SERVER_REFERENCE => properties.server_reference = Some(section.rest.text()?),
            id::AUTHENTICATION_METHOD => properties.authentication_method = Some(section.rest.text()?),
            id::AUTHENTICATION_DATA => properties.authentication_data = Some(section.rest.binary()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    section.expect_method_with_data()?;
    properties.user_properties = section.user_properties();
    Ok(properties)
}

const REASON: Ids = Ids::of(&[id::REASON_STRING, id::USER_PROPERTY]);

/// Reason string and user properties of PUBACK to PUBCOMP, SUBACK and UNSUBACK (MQTT5 §3.4.2.2).
pub(super) fn reason<'a>(body: &mut Reader<'a>) -> Result<ReasonProperties<'a>, DecodeError> {
    let mut section = Section::open(body, REASON, USER)?;
    let mut reason_string = None;
    while let Some(id) = section.next()? {
        match id {
            id::REASON_STRING => reason_string = Some(section.rest.text()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    Ok(ReasonProperties { reason_string, user_properties: section.user_properties() })
}

const SUBSCRIBE: Ids = USER_AND_SUBSCRIPTION_ID;

/// Subscription identifier and user properties of SUBSCRIBE (MQTT5 §3.8.2.1).
pub(super) fn subscribe<'a>(body: &mut Reader<'a>) -> Result<(Option<u32>, UserProperties<'a>), DecodeError> {
    let mut section = Section::open(body, SUBSCRIBE, USER)?;
    let mut subscription_id = None;
    while let Some(id) = section.next()? {
        match id {
            id::SUBSCRIPTION_ID => subscription_id = Some(section.subscription_id()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    Ok((subscription_id, section.user_properties()))
}

/// User properties of UNSUBSCRIBE (MQTT5 §3.10.2.1).
pub(super) fn unsubscribe<'a>(body: &mut Reader<'a>) -> Result<UserProperties<'a>, DecodeError> {
    let mut section = Section::open(body, USER, USER)?;
    while section.next()?.is_some() {
        section.user_property()?;
    }
    Ok(section.user_properties())
}

/// Properties of DISCONNECT (MQTT5 §3.14.2.2).
#[derive(Default)]
pub(super) struct DisconnectProperties<'a> {
    pub session_expiry_s: Option<u32>,
    pub server_reference: Option<&'a str>,
    pub reason: ReasonProperties<'a>,
}

const DISCONNECT: Ids = Ids::of(&[id::SESSION_EXPIRY, id::SERVER_REFERENCE, id::REASON_STRING, id::USER_PROPERTY]);

/// Session expiry comes from a client only [MQTT-3.14.2-2], a server reference from a server only (§3.14.2.2.5).
pub(super) fn disconnect<'a>(body: &mut Reader<'a>, sender: Sender) -> Result<DisconnectProperties<'a>, DecodeError> {
    let mut section = Section::open(body, DISCONNECT, USER)?;
    let foreign = match sender {
        Sender::Client => id::SERVER_REFERENCE,
        Sender::Server => id::SESSION_EXPIRY,
    };
    section.allowed = DISCONNECT.without(foreign);
    section.not_from_sender = DISCONNECT;
    let mut properties = DisconnectProperties::default();
    while let Some(id) = section.next()? {
        match id {
            id::SESSION_EXPIRY => properties.session_expiry_s = Some(section.rest.u32()?),
            id::SERVER_REFERENCE => properties.server_reference = Some(section.rest.text()?),
            id::REASON_STRING => properties.reason.reason_string = Some(section.rest.text()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    properties.reason.user_properties = section.user_properties();
    Ok(properties)
}

/// Properties of AUTH (MQTT5 §3.15.2.2).
#[derive(Default)]
pub(super) struct AuthProperties<'a> {
    pub method: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub reason: ReasonProperties<'a>,
}

const AUTH: Ids = Ids::of(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY]);

/// The method is required (§3.15.2.2.2).
pub(super) fn auth<'a>(body: &mut Reader<'a>) -> Result<AuthProperties<'a>, DecodeError> {
    let mut section = Section::open(body, AUTH, USER)?;
    let mut properties = AuthProperties::default();
    while let Some(id) = section.next()? {
        match id {
            id::AUTHENTICATION_METHOD => properties.method = Some(section.rest.text()?),
            id::AUTHENTICATION_DATA => properties.data = Some(section.rest.binary()?),
            id::REASON_STRING => properties.reason.reason_string = Some(section.rest.text()?),
            id::USER_PROPERTY => section.user_property()?,
            _ => return Err(no_arm()),
        }
    }
    if properties.method.is_none() {
        return Err(DecodeError::protocol("AUTH without an authentication method (§3.15.2.2.2)"));
    }
    properties.reason.user_properties = section.user_properties();
    Ok(properties)
}
