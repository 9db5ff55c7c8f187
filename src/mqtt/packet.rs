//! Every MQTT control packet as a value that borrows from the frame it was decoded from.
//!
//! One set of types serves MQTT 3.1, 3.1.1 and 5.0 and both directions: what a version does not
//! have is simply absent (`None`, empty). The decoder builds them, the encoder takes them.

use std::fmt;
use std::num::NonZeroU16;

use super::head::PacketType;
use super::properties::{SubscriptionIds, UserProperties};
use super::reason::ReasonCode;

/// The protocol level of a connection, fixed by its CONNECT packet (MQTT5 §3.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// The protocol name in CONNECT (MQTT5 §3.1.2.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// The protocol level in CONNECT (MQTT5 §3.1.2.2).
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// Quality of service (MQTT5 §4.3). The order is the order of the guarantees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0: delivered at most once.
    #[default]
    AtMostOnce,
    /// 1: delivered at least once.
    AtLeastOnce,
    /// 2: delivered exactly once.
    ExactlyOnce,
}

impl QoS {
    /// The number on the wire.
    pub const fn as_u8(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// From the number on the wire; 3 and above mean nothing [MQTT-3.3.1-4].
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier; zero is not one [MQTT-2.2.1-3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// `None` for zero.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How one PUBLISH travels: its quality of service together with the packet id that QoS 1 and 2
/// need and QoS 0 must not have [MQTT-2.2.1-2].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The quality of service alone.
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// The packet id, where there is one.
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}

/// Any control packet (MQTT5 §3).
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// §3.1
    Connect(Box<Connect<'a>>),
    /// §3.2
    ConnAck(Box<ConnAck<'a>>),
    /// §3.3
    Publish(Publish<'a>),
    /// §3.4
    PubAck(Ack<'a>),
    /// §3.5
    PubRec(Ack<'a>),
    /// §3.6
    PubRel(Ack<'a>),
    /// §3.7
    PubComp(Ack<'a>),
    /// §3.8
    Subscribe(Subscribe<'a>),
    /// §3.9
    SubAck(SubAck<'a>),
    /// §3.10
    Unsubscribe(Unsubscribe<'a>),
    /// §3.11
    UnsubAck(UnsubAck<'a>),
    /// §3.12
    PingReq,
    /// §3.13
    PingResp,
    /// §3.14
    Disconnect(Disconnect<'a>),
    /// §3.15, MQTT 5 only
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The type on the wire.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (MQTT5 §3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    /// From the protocol name and level.
    pub version: ProtocolVersion,
    /// MQTT 5 Clean Start; Clean Session in 3.x.
    pub clean_start: bool,
    /// Seconds; 0 switches keep-alive off.
    pub keep_alive_s: u16,
    /// May be empty: the server assigns one (§3.1.3.1).
    pub client_id: &'a str,
    /// The will, if the will flag is set.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password: binary in every version.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 properties; all absent in 3.x.
    pub properties: ConnectProperties<'a>,
}

/// The will of a CONNECT (MQTT5 §3.1.3.2 to §3.1.3.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Topic, checked as a topic name.
    pub topic: &'a str,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Seconds between the end of the connection and the will (MQTT 5).
    pub delay_s: Option<u32>,
    /// The properties that travel with the will message.
    pub properties: PublishProperties<'a>,
}

/// Properties of CONNECT (MQTT5 §3.1.2.11).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Seconds; `u32::MAX` never expires; absent means 0.
    pub session_expiry_s: Option<u32>,
    /// Packets; absent means 65,535; 0 is refused by the decoder.
    pub receive_maximum: Option<NonZeroU16>,
    /// Bytes, the whole packet; 0 is refused by the decoder.
    pub maximum_packet_bytes: Option<u32>,
    /// Highest alias the client accepts; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants Response Information.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reason strings on failures; absent means yes.
    pub request_problem_information: Option<bool>,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Enhanced authentication (§4.12).
    pub authentication_method: Option<&'a str>,
    /// Only together with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// CONNACK (MQTT5 §3.2). In 3.x only `session_present` and the return code of `reason` travel.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// False whenever `reason` is a refusal [MQTT-3.2.2-6].
    pub session_present: bool,
    /// Success or the refusal; the encoder maps it to a 3.x return code.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: ConnAckProperties<'a>,
}

/// Properties of CONNACK (MQTT5 §3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnAckProperties<'a> {
    /// Seconds, when the server grants other than asked.
    pub session_expiry_s: Option<u32>,
    /// Packets the server takes unacknowledged.
    pub receive_maximum: Option<NonZeroU16>,
    /// Only 0 or 1; absent means 2, so the encoder leaves 2 out.
    pub maximum_qos: Option<QoS>,
    /// Absent means yes.
    pub retain_available: Option<bool>,
    /// Bytes, the whole packet.
    pub maximum_packet_bytes: Option<u32>,
    /// The client id that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Highest alias the server accepts.
    pub topic_alias_maximum: Option<u16>,
    /// Human-readable, for diagnostics only.
    pub reason_string: Option<&'a str>,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Absent means yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent means yes.
    pub subscription_ids_available: Option<bool>,
    /// Absent means yes.
    pub shared_subscription_available: Option<bool>,
    /// Seconds; the client must use it instead of its own [MQTT-3.2.2-21].
    pub server_keep_alive_s: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Enhanced authentication (§4.12).
    pub authentication_method: Option<&'a str>,
    /// Only together with a method.
    pub authentication_data: Option<&'a [u8]>,
}

/// PUBLISH (MQTT5 §3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Sent before; never with QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// QoS and packet id.
    pub delivery: Delivery,
    /// Retain flag.
    pub retain: bool,
    /// Checked as a topic name; empty only together with a topic alias (MQTT 5).
    pub topic: &'a str,
    /// MQTT 5 properties.
    pub properties: PublishProperties<'a>,
    /// Application payload, untouched.
    pub payload: &'a [u8],
}

/// Properties of PUBLISH and of a will (MQTT5 §3.3.2.3, §3.1.3.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    /// True: the payload is declared to be UTF-8 text; absent means unspecified bytes.
    pub payload_is_utf8: Option<bool>,
    /// Seconds of life left.
    pub message_expiry_s: Option<u32>,
    /// Stands for a topic; 0 is refused by the decoder. Never in a will.
    pub topic_alias: Option<NonZeroU16>,
    /// Checked as a topic name.
    pub response_topic: Option<&'a str>,
    /// Opaque bytes for the requester.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// Server to client only; several when subscriptions overlap.
    pub subscription_ids: SubscriptionIds<'a>,
    /// Describes the payload.
    pub content_type: Option<&'a str>,
}

impl PublishProperties<'_> {
    /// Whether there is no property at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Without an early exit: the common answer is yes, and it is asked for every message sent.
        self.payload_is_utf8.is_none()
            & self.message_expiry_s.is_none()
            & self.topic_alias.is_none()
            & self.response_topic.is_none()
            & self.correlation_data.is_none()
            & self.content_type.is_none()
            && self.user_properties.is_empty()
            && self.subscription_ids.is_empty()
    }
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT5 §3.4 to §3.7).
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    /// The packet id acknowledged.
    pub packet_id: PacketId,
    /// Always success in 3.x, which has no reason.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: ReasonProperties<'a>,
}

/// The properties that most answers share: a reason string and user properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReasonProperties<'a> {
    /// Human-readable, for diagnostics only.
    pub reason_string: Option<&'a str>,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
}

/// SUBSCRIBE (MQTT5 §3.8).
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// Answered by the SUBACK of the same id.
    pub packet_id: PacketId,
    /// 1 to 268,435,455 (MQTT 5).
    pub subscription_id: Option<u32>,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// At least one [MQTT-3.8.3-2].
    pub filters: Vec<SubscribeFilter<'a>>,
}

/// One filter of a SUBSCRIBE with its options (MQTT5 §3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// In 3.x checked as a topic filter. In MQTT 5 any string of at least one character, for the session to parse
    /// and to answer with 0x8F if it is no filter; [`super::TopicFilter`] and [`super::topic::SharedFilter`] do.
    pub filter: &'a str,
    /// Options; in 3.x only the QoS.
    pub options: SubscribeOptions,
}

/// Subscription options (MQTT5 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// Not to be sent what this very client id published.
    pub no_local: bool,
    /// Keep the retain flag of the publisher.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a new subscription (MQTT5 §3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Always,
    /// 1: only if the subscription did not exist.
    IfNew,
    /// 2: never.
    Never,
}

/// SUBACK (MQTT5 §3.9).
#[derive(Clone, Debug, PartialEq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: ReasonProperties<'a>,
    /// One per filter, in order; failures become 0x80 in 3.1.1.
    pub reasons: ReasonList<'a>,
}

/// UNSUBSCRIBE (MQTT5 §3.10).
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Answered by the UNSUBACK of the same id.
    pub packet_id: PacketId,
    /// User properties in order, duplicates kept.
    pub user_properties: UserProperties<'a>,
    /// At least one [MQTT-3.10.3-2]; checked like those of [`Subscribe`].
    pub filters: Vec<&'a str>,
}

/// UNSUBACK (MQTT5 §3.11). In 3.x it carries no reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: ReasonProperties<'a>,
    /// One per filter, in order; empty in 3.x.
    pub reasons: ReasonList<'a>,
}

/// Reason codes of a SUBACK or UNSUBACK.
pub type ReasonList<'a> = std::borrow::Cow<'a, [ReasonCode]>;

/// DISCONNECT (MQTT5 §3.14). In 3.x only a client sends it, without a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Normal disconnection in 3.x.
    pub reason: ReasonCode,
    /// Seconds; from the client only.
    pub session_expiry_s: Option<u32>,
    /// From the server only.
    pub server_reference: Option<&'a str>,
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}

/// AUTH (MQTT5 §3.15).
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Required by §3.15.2.2.2, except in the empty AUTH that is a success.
    pub method: Option<&'a str>,
    /// Method-specific.
    pub data: Option<&'a [u8]>,
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}
