//! The will (MQTT5 §3.1.2.5): kept while the connection lives, published when it ends without a normal DISCONNECT.

use bytes::{Bytes, BytesMut};

use crate::mqtt::head::Sender;
use crate::mqtt::packet::{Delivery, Packet, PacketId, Publish, PublishProperties, QoS, Will};
use crate::mqtt::{ProtocolVersion, decode, encode};

/// A PUBLISH that is kept: in the wire form of MQTT 5, which holds everything and is compact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedPublish {
    frame: Bytes,
}

impl OwnedPublish {
    /// `None` if it is larger than a packet can be.
    pub fn new(publish: &Publish<'_>) -> Option<Self> {
        let mut frame = BytesMut::new();
        encode::publish(publish, ProtocolVersion::V5, usize::MAX, &mut frame).ok()?;
        Some(Self { frame: frame.freeze() })
    }

    /// The PUBLISH that a will stands for.
    pub(super) fn of_will(will: &Will<'_>) -> Option<Self> {
        // The id is never sent; it only makes the packet whole.
        let id = PacketId::new(1)?;
        let delivery = match will.qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(id),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(id),
        };
        let properties = PublishProperties { topic_alias: None, ..will.properties.clone() };
        Self::new(&Publish {
            dup: false,
            delivery,
            retain: will.retain,
            topic: will.topic,
            properties,
            payload: will.payload,
        })
    }

    /// What [`OwnedPublish::frame`] gave.
    pub fn from_frame(frame: Box<[u8]>) -> Self {
        Self { frame: Bytes::from(frame) }
    }

    /// A PUBLISH in the wire form of MQTT 5.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// About what it holds in memory, bytes.
    pub fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The packet; `None` never happens for what [`OwnedPublish::new`] wrote.
    pub fn publish(&self) -> Option<Publish<'_>> {
        match decode::packet(&self.frame, Some(ProtocolVersion::V5), Sender::Server) {
            Ok(Packet::Publish(publish)) => Some(publish),
            Ok(_) | Err(_) => None,
        }
    }
}
