//! Packets out of arbitrary bytes: one generator for the property tests and the fuzz targets.
//!
//! Whatever the bytes, the packet is one that the version can say and the sender may send, so it must survive encoding
//! and decoding unchanged.

use std::borrow::Cow;
use std::num::NonZeroU16;

use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, PublishProperties, ReasonProperties,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeOptions, UnsubAck, Unsubscribe, Will,
};
use millrace::mqtt::properties::{SubscriptionIds, UserProperties};
use millrace::mqtt::topic::{check_filter, check_name};
use millrace::mqtt::{Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode};

/// Strings for when the bytes give none.
const TEXTS: [&str; 6] = ["a", "a/b", "ü/€/𐍈", " ", "$SYS/x", "\u{feff}"];
const FILTERS: [&str; 6] = ["a", "#", "+/b", "$share/g/a/+", "/", "a//#"];
/// The lengths at which a length field grows, and the largest.
const LENGTHS: [usize; 6] = [0, 127, 128, 16_383, 16_384, 65_535];

static LONG: [u8; 65_535] = [b'x'; 65_535];

/// Bytes to choose by; zeros once they are used up.
#[derive(Debug)]
pub struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn u8(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.u8()) % from.len()]
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.u8().is_multiple_of(3) { Some(value(self)) } else { None }
    }

    /// Mostly short and from the source, seldom of a length where something grows.
    fn bytes(&mut self) -> &'a [u8] {
        let choice = self.u8();
        if choice >= 250 {
            return &LONG[..LENGTHS[usize::from(choice - 250)]];
        }
        let (taken, rest) = self.rest.split_at(usize::from(choice % 32).min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn text(&mut self) -> &'a str {
        match std::str::from_utf8(self.bytes()) {
            Ok(text) if !text.contains('\0') => text,
            _ => self.pick(&TEXTS),
        }
    }

    fn topic(&mut self) -> &'a str {
        let text = self.text();
        if check_name(text).is_ok() { text } else { self.pick(&TEXTS) }
    }

    /// MQTT 5 decodes any string that is not empty; 3.x only filters.
    fn filter(&mut self, version: ProtocolVersion) -> &'a str {
        let text = self.text();
        let is_fine = if version == ProtocolVersion::V5 { !text.is_empty() } else { check_filter(text).is_ok() };
        if is_fine { text } else { self.pick(&FILTERS) }
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(self.u16().max(1)).unwrap()
    }

    fn non_zero(&mut self) -> NonZeroU16 {
        NonZeroU16::new(self.u16().max(1)).unwrap()
    }

    fn qos(&mut self) -> QoS {
        self.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn reason(&mut self, codes: &[u8]) -> ReasonCode {
        ReasonCode::from_u8(self.pick(codes)).unwrap()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.u8() % 4 + 1;
        (0..count).map(|_| item(self)).collect()
    }
}

/// What the lists of a packet borrow from.
#[derive(Debug)]
pub struct Pool<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    ids: Vec<u32>,
}

impl<'a> Pool<'a> {
    pub fn new(source: &mut Source<'a>) -> Self {
        let pairs = source.list(|source| (source.text(), source.text()));
        let ids = source.list(|source| (source.u32() >> (source.u8() % 28)).clamp(1, 268_435_455));
        Self { pairs, ids }
    }

    fn pairs(&self, source: &mut Source<'_>) -> UserProperties<'_> {
        UserProperties::Pairs(&self.pairs[..usize::from(source.u8()) % (self.pairs.len() + 1)])
    }

    fn ids(&self, source: &mut Source<'_>) -> SubscriptionIds<'_> {
        SubscriptionIds::List(&self.ids[..usize::from(source.u8()) % (self.ids.len() + 1)])
    }
}

/// A packet that this sender may send in this version.
pub fn packet<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion, sender: Sender) -> Packet<'a> {
    let choice = source.u8();
    if choice.is_multiple_of(4) {
        return Packet::Publish(publish(source, pool, version, sender));
    }
    let is_v5 = version == ProtocolVersion::V5;
    let both = |source: &mut Source<'a>| match choice / 4 % 4 {
        0 => Packet::PubAck(ack(source, pool, version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])),
        1 => Packet::PubRec(ack(source, pool, version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])),
        2 => Packet::PubRel(ack(source, pool, version, &[0x00, 0x92])),
        _ => Packet::PubComp(ack(source, pool, version, &[0x00, 0x92])),
    };
    match (choice % 4, choice / 4 % 6, sender) {
        (1, _, _) => both(source),
        (_, 0 | 1, Sender::Client) => Packet::Connect(Box::new(connect(source, pool, version))),
        (_, 0 | 1, Sender::Server) => Packet::ConnAck(Box::new(connack(source, pool, version))),
        (_, 2, Sender::Client) => Packet::Subscribe(subscribe(source, pool, version)),
        (_, 2, Sender::Server) => Packet::SubAck(suback(source, pool, version)),
        (_, 3, Sender::Client) => Packet::Unsubscribe(Unsubscribe {
            packet_id: source.packet_id(),
            user_properties: if is_v5 { pool.pairs(source) } else { UserProperties::default() },
            filters: source.list(|source| source.filter(version)),
        }),
        (_, 3, Sender::Server) => Packet::UnsubAck(UnsubAck {
            packet_id: source.packet_id(),
            properties: reason_properties(source, pool, version),
            reasons: if is_v5 {
                Cow::Owned(source.list(|source| source.reason(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91])))
            } else {
                Cow::Borrowed(&[])
            },
        }),
        (_, 4, Sender::Client) => Packet::PingReq,
        (_, 4, Sender::Server) => Packet::PingResp,
        _ if is_v5 && source.bool() => Packet::Auth(auth(source, pool, sender)),
        (_, _, Sender::Server) if !is_v5 => Packet::PingResp,
        _ => Packet::Disconnect(disconnect(source, pool, version, sender)),
    }
}

fn publish<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion, sender: Sender) -> Publish<'a> {
    let delivery = match source.u8() % 3 {
        0 => Delivery::AtMostOnce,
        1 => Delivery::AtLeastOnce(source.packet_id()),
        _ => Delivery::ExactlyOnce(source.packet_id()),
    };
    let mut properties = PublishProperties::default();
    if version == ProtocolVersion::V5 {
        properties = message_properties(source, pool);
        properties.topic_alias = source.maybe(Source::non_zero);
        if sender == Sender::Server {
            properties.subscription_ids = pool.ids(source);
        }
    }
    let topic = if properties.topic_alias.is_some() && source.bool() { "" } else { source.topic() };
    Publish {
        dup: delivery.qos() != QoS::AtMostOnce && source.bool(),
        delivery,
        retain: source.bool(),
        topic,
        properties,
        payload: source.bytes(),
    }
}

fn message_properties<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>) -> PublishProperties<'a> {
    PublishProperties {
        payload_is_utf8: source.maybe(Source::bool),
        message_expiry_s: source.maybe(Source::u32),
        topic_alias: None,
        response_topic: source.maybe(Source::topic),
        correlation_data: source.maybe(Source::bytes),
        user_properties: pool.pairs(source),
        subscription_ids: SubscriptionIds::default(),
        content_type: source.maybe(Source::text),
    }
}

fn connect<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion) -> Connect<'a> {
    let is_v5 = version == ProtocolVersion::V5;
    let username = source.maybe(Source::text);
    let password = if is_v5 || username.is_some() { source.maybe(Source::bytes) } else { None };
    let authentication_method = source.maybe(Source::text);
    let properties = ConnectProperties {
        session_expiry_s: source.maybe(Source::u32),
        receive_maximum: source.maybe(Source::non_zero),
        maximum_packet_bytes: source.maybe(|source| source.u32().max(1)),
        topic_alias_maximum: source.maybe(Source::u16),
        request_response_information: source.maybe(Source::bool),
        request_problem_information: source.maybe(Source::bool),
        user_properties: pool.pairs(source),
        authentication_method,
        authentication_data: authentication_method.and_then(|_| source.maybe(Source::bytes)),
    };
    Connect {
        version,
        clean_start: source.bool(),
        keep_alive_s: source.u16(),
        client_id: source.text(),
        will: source.maybe(|source| Will {
            qos: source.qos(),
            retain: source.bool(),
            topic: source.topic(),
            payload: source.bytes(),
            delay_s: if is_v5 { source.maybe(Source::u32) } else { None },
            properties: if is_v5 { message_properties(source, pool) } else { PublishProperties::default() },
        }),
        username,
        password,
        properties: if is_v5 { properties } else { ConnectProperties::default() },
    }
}

fn connack<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion) -> ConnAck<'a> {
    let is_v5 = version == ProtocolVersion::V5;
    let reason = if is_v5 {
        source.reason(&[0x00, 0x00, 0x80, 0x84, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9D, 0x9F])
    } else {
        source.reason(&[0x00, 0x84, 0x85, 0x88, 0x86, 0x87])
    };
    let session_present = !reason.is_error() && version != ProtocolVersion::V31 && source.bool();
    if !is_v5 {
        return ConnAck { session_present, reason, properties: ConnAckProperties::default() };
    }
    let authentication_method = source.maybe(Source::text);
    let properties = ConnAckProperties {
        session_expiry_s: source.maybe(Source::u32),
        receive_maximum: source.maybe(Source::non_zero),
        maximum_qos: source.maybe(|source| source.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce])),
        retain_available: source.maybe(Source::bool),
        maximum_packet_bytes: source.maybe(|source| source.u32().max(1)),
        assigned_client_id: source.maybe(Source::text),
        topic_alias_maximum: source.maybe(Source::u16),
        reason_string: source.maybe(Source::text),
        user_properties: pool.pairs(source),
        wildcard_subscription_available: source.maybe(Source::bool),
        subscription_ids_available: source.maybe(Source::bool),
        shared_subscription_available: source.maybe(Source::bool),
        server_keep_alive_s: source.maybe(Source::u16),
        response_information: source.maybe(Source::text),
        server_reference: source.maybe(Source::text),
        authentication_method,
        authentication_data: authentication_method.and_then(|_| source.maybe(Source::bytes)),
    };
    ConnAck { session_present, reason, properties }
}

fn reason_properties<'a>(
    source: &mut Source<'a>,
    pool: &'a Pool<'a>,
    version: ProtocolVersion,
) -> ReasonProperties<'a> {
    match version {
        ProtocolVersion::V31 | ProtocolVersion::V311 => ReasonProperties::default(),
        ProtocolVersion::V5 => {
            ReasonProperties { reason_string: source.maybe(Source::text), user_properties: pool.pairs(source) }
        }
    }
}

fn ack<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion, codes: &[u8]) -> Ack<'a> {
    let codes = if version == ProtocolVersion::V5 { codes } else { &[0] };
    Ack {
        packet_id: source.packet_id(),
        reason: source.reason(codes),
        properties: reason_properties(source, pool, version),
    }
}

fn subscribe<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion) -> Subscribe<'a> {
    let is_v5 = version == ProtocolVersion::V5;
    Subscribe {
        packet_id: source.packet_id(),
        subscription_id: if is_v5 {
            source.maybe(|source| pool.ids[source.u8() as usize % pool.ids.len()])
        } else {
            None
        },
        user_properties: if is_v5 { pool.pairs(source) } else { UserProperties::default() },
        filters: source.list(|source| {
            let filter = source.filter(version);
            let mut options = SubscribeOptions { qos: source.qos(), ..SubscribeOptions::default() };
            if is_v5 {
                options.no_local = !filter.starts_with("$share/") && source.bool();
                options.retain_as_published = source.bool();
                options.retain_handling =
                    source.pick(&[RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never]);
            }
            SubscribeFilter { filter, options }
        }),
    }
}

fn suback<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, version: ProtocolVersion) -> SubAck<'a> {
    let codes: &[u8] = match version {
        ProtocolVersion::V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        ProtocolVersion::V31 | ProtocolVersion::V311 => &[0, 1, 2, 0x80],
    };
    SubAck {
        packet_id: source.packet_id(),
        properties: reason_properties(source, pool, version),
        reasons: Cow::Owned(source.list(|source| source.reason(codes))),
    }
}

fn disconnect<'a>(
    source: &mut Source<'a>,
    pool: &'a Pool<'a>,
    version: ProtocolVersion,
    sender: Sender,
) -> Disconnect<'a> {
    if version != ProtocolVersion::V5 {
        let properties = ReasonProperties::default();
        return Disconnect { reason: ReasonCode::Success, session_expiry_s: None, server_reference: None, properties };
    }
    let is_client = sender == Sender::Client;
    let codes: &[u8] =
        if is_client { &[0, 4, 0x80, 0x81, 0x82, 0x93, 0x99] } else { &[0, 0x80, 0x87, 0x8B, 0x8E, 0x98, 0x9C, 0xA2] };
    Disconnect {
        reason: source.reason(codes),
        session_expiry_s: if is_client { source.maybe(Source::u32) } else { None },
        server_reference: if is_client { None } else { source.maybe(Source::text) },
        properties: reason_properties(source, pool, version),
    }
}

fn auth<'a>(source: &mut Source<'a>, pool: &'a Pool<'a>, sender: Sender) -> Auth<'a> {
    let codes: &[u8] = if sender == Sender::Client { &[0x18, 0x19] } else { &[0x00, 0x18] };
    Auth {
        reason: source.reason(codes),
        method: Some(source.text()),
        data: source.maybe(Source::bytes),
        properties: reason_properties(source, pool, ProtocolVersion::V5),
    }
}
