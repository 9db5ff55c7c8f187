//! What the server sends, as tests look at it.

use std::fmt::Debug;

use millrace::mqtt::decode;
use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{Delivery, Packet, ProtocolVersion, Publish, QoS};

/// A whole packet of the server.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    version: ProtocolVersion,
}

impl Frame {
    pub(crate) fn new(bytes: Vec<u8>, version: ProtocolVersion) -> Self {
        Self { bytes, version }
    }

    /// The packet.
    #[track_caller]
    pub(crate) fn packet(&self) -> Packet<'_> {
        match decode::packet(&self.bytes, Some(self.version), Sender::Server) {
            Ok(packet) => packet,
            Err(error) => panic!("the server sent {:02x?}: {error}", self.bytes),
        }
    }

    /// The PUBLISH that it is.
    #[track_caller]
    pub(crate) fn message(&self) -> Message {
        match self.packet() {
            Packet::Publish(publish) => Message::of(&publish),
            other => unexpected(&other, "PUBLISH"),
        }
    }
}

/// A PUBLISH of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) delivery: Delivery,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) payload_is_utf8: Option<bool>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation_data: Option<Vec<u8>>,
    pub(crate) user_properties: Vec<(String, String)>,
    pub(crate) subscription_ids: Vec<u32>,
}

impl Message {
    fn of(publish: &Publish<'_>) -> Self {
        let properties = &publish.properties;
        Self {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            delivery: publish.delivery,
            dup: publish.dup,
            retain: publish.retain,
            payload_is_utf8: properties.payload_is_utf8,
            expiry_s: properties.message_expiry_s,
            content_type: properties.content_type.map(str::to_owned),
            response_topic: properties.response_topic.map(str::to_owned),
            correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
            user_properties: properties.user_properties.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            subscription_ids: properties.subscription_ids.iter().collect(),
        }
    }

    /// Its QoS.
    pub(crate) fn qos(&self) -> QoS {
        self.delivery.qos()
    }

    /// Its payload as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// Fails because something else came.
#[track_caller]
pub(crate) fn unexpected(packet: &impl Debug, wanted: &str) -> ! {
    panic!("the server sent {packet:?} where {wanted} should come")
}
