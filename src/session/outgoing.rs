//! Packets to the client as values, and their wire form.

use std::num::NonZeroU16;

use bytes::BytesMut;

use super::Delivery;
use crate::mqtt::encode::{self, EncodeError};
use crate::mqtt::packet::{
    Ack, ConnAck, ConnAckProperties, Delivery as WireDelivery, Disconnect, Packet, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonProperties, SubAck, UnsubAck,
};
use crate::mqtt::properties::SubscriptionIds;
use crate::mqtt::{ClientId, PacketId, ReasonCode};

/// A packet to send.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// CONNACK.
    ConnAck(Box<ConnAckParts>),
    /// PUBLISH.
    Publish {
        /// What.
        delivery: Delivery,
        /// Above QoS 0.
        packet_id: Option<PacketId>,
        /// Sent before.
        dup: bool,
        /// Milliseconds since the Unix epoch: what the message expiry interval is counted down to.
        wall_ms: i64,
    },
    /// PUBACK.
    PubAck {
        /// Of the PUBLISH.
        packet_id: PacketId,
        /// Only MQTT 5 sees it.
        reason: ReasonCode,
    },
    /// PUBREC.
    PubRec {
        /// Of the PUBLISH.
        packet_id: PacketId,
        /// Only MQTT 5 sees it.
        reason: ReasonCode,
    },
    /// PUBREL.
    PubRel {
        /// Of the PUBREC.
        packet_id: PacketId,
        /// Only MQTT 5 sees it.
        reason: ReasonCode,
    },
    /// PUBCOMP.
    PubComp {
        /// Of the PUBREL.
        packet_id: PacketId,
        /// Only MQTT 5 sees it.
        reason: ReasonCode,
    },
    /// SUBACK.
    SubAck {
        /// Of the SUBSCRIBE.
        packet_id: PacketId,
        /// One per filter.
        reasons: Vec<ReasonCode>,
    },
    /// UNSUBACK.
    UnsubAck {
        /// Of the UNSUBSCRIBE.
        packet_id: PacketId,
        /// One per filter.
        reasons: Vec<ReasonCode>,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT; MQTT 5 only.
    Disconnect {
        /// Why.
        reason: ReasonCode,
    },
}

/// The parts of a CONNACK that differ between connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAckParts {
    /// Success or the refusal.
    pub reason: ReasonCode,
    /// The client has a session already.
    pub session_present: bool,
    /// Seconds, when other than asked.
    pub session_expiry_s: Option<u32>,
    /// Publishes the client may have unacknowledged.
    pub receive_maximum: Option<NonZeroU16>,
    /// Largest packet that is taken.
    pub packet_bytes_max: Option<u32>,
    /// The client id that was assigned.
    pub assigned_client_id: Option<ClientId>,
    /// Topic aliases that are taken.
    pub topic_alias_maximum: u16,
    /// Seconds, when other than asked.
    pub server_keep_alive_s: Option<u16>,
}

impl ConnAckParts {
    /// A CONNACK that refuses.
    pub(super) fn refusal(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_present: false,
            session_expiry_s: None,
            receive_maximum: None,
            packet_bytes_max: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            server_keep_alive_s: None,
        }
    }

    fn packet(&self) -> Packet<'_> {
        let accepted = !self.reason.is_error();
        Packet::ConnAck(Box::new(ConnAck {
            session_present: self.session_present,
            reason: self.reason,
            properties: ConnAckProperties {
                session_expiry_s: self.session_expiry_s,
                receive_maximum: self.receive_maximum,
                maximum_packet_bytes: self.packet_bytes_max,
                assigned_client_id: self.assigned_client_id.as_ref().map(ClientId::as_str),
                topic_alias_maximum: accepted.then_some(self.topic_alias_maximum),
                shared_subscription_available: accepted.then_some(false),
                server_keep_alive_s: self.server_keep_alive_s,
                ..ConnAckProperties::default()
            },
        }))
    }
}

impl Outgoing {
    /// Adds the packet to `out`.
    ///
    /// # Errors
    /// It is larger than `frame_bytes_max`, or a field is longer than the protocol allows; `out` is as before.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        frame_bytes_max: usize,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let packet = match self {
            Self::Publish { delivery, packet_id, dup, wall_ms } => {
                return encode_publish(delivery, *packet_id, *dup, *wall_ms, version, frame_bytes_max, out);
            }
            Self::ConnAck(parts) => parts.packet(),
            Self::PubAck { packet_id, reason } => Packet::PubAck(ack(*packet_id, *reason)),
            Self::PubRec { packet_id, reason } => Packet::PubRec(ack(*packet_id, *reason)),
            Self::PubRel { packet_id, reason } => Packet::PubRel(ack(*packet_id, *reason)),
            Self::PubComp { packet_id, reason } => Packet::PubComp(ack(*packet_id, *reason)),
            Self::SubAck { packet_id, reasons } => Packet::SubAck(SubAck {
                packet_id: *packet_id,
                properties: ReasonProperties::default(),
                reasons: reasons.into(),
            }),
            Self::UnsubAck { packet_id, reasons } => Packet::UnsubAck(UnsubAck {
                packet_id: *packet_id,
                properties: ReasonProperties::default(),
                reasons: reasons.into(),
            }),
            Self::PingResp => Packet::PingResp,
            Self::Disconnect { reason } => Packet::Disconnect(Disconnect {
                reason: *reason,
                session_expiry_s: None,
                server_reference: None,
                properties: ReasonProperties::default(),
            }),
        };
        encode::packet(&packet, version, frame_bytes_max, out)
    }
}

fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id, reason, properties: ReasonProperties::default() }
}

/// [MQTT-3.3.2-6]: the expiry goes out counted down; [MQTT-3.3.4-3]: with all identifiers.
fn encode_publish(
    delivery: &Delivery,
    packet_id: Option<PacketId>,
    dup: bool,
    wall_ms: i64,
    version: ProtocolVersion,
    frame_bytes_max: usize,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    // Expired between the session's look and now: it goes out with its last second.
    let properties = delivery.message.properties(wall_ms).unwrap_or_default();
    let publish = Publish {
        dup,
        delivery: match (packet_id, delivery.qos) {
            (None, _) | (Some(_), QoS::AtMostOnce) => WireDelivery::AtMostOnce,
            (Some(id), QoS::AtLeastOnce) => WireDelivery::AtLeastOnce(id),
            (Some(id), QoS::ExactlyOnce) => WireDelivery::ExactlyOnce(id),
        },
        retain: delivery.retain,
        topic: delivery.message.topic(),
        properties: PublishProperties {
            subscription_ids: SubscriptionIds::List(&delivery.subscription_ids),
            ..properties
        },
        payload: delivery.message.payload(),
    };
    encode::publish(&publish, version, frame_bytes_max, out)
}
