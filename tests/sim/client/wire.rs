//! Packets over a stream in memory.

use std::num::NonZeroU16;

use bytes::{Buf, BytesMut};
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe, Will,
};
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{ReasonCode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::state::Owed;
use crate::history::{Asked, Link, Message, Name};

/// One end of a connection.
pub(crate) struct Wire {
    stream: DuplexStream,
    pub(crate) version: ProtocolVersion,
    received: BytesMut,
    out: BytesMut,
}

impl Wire {
    pub(crate) fn new(stream: DuplexStream, version: ProtocolVersion) -> Self {
        Self { stream, version, received: BytesMut::new(), out: BytesMut::new() }
    }

    /// The next whole packet; `None` when the server closed. Cancel safe.
    pub(crate) async fn read(&mut self) -> Option<BytesMut> {
        loop {
            let head = frame_head(&self.received, Some(self.version), Sender::Server, usize::MAX).unwrap();
            if let Some(frame_bytes) = head.map(|head| head.frame_bytes())
                && self.received.len() >= frame_bytes
            {
                return Some(self.received.split_to(frame_bytes));
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Puts a packet into what is sent next.
    fn put(&mut self, packet: &Packet<'_>) {
        encode::packet(packet, self.version, usize::MAX, &mut self.out).unwrap();
    }

    /// Sends what was put; false when the server is gone.
    pub(crate) async fn flush(&mut self) -> bool {
        while self.out.has_remaining() {
            match self.stream.write_buf(&mut self.out).await {
                Ok(written) if written > 0 => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Sends only `bytes` of what was put, as a connection that breaks does.
    pub(crate) async fn flush_part(&mut self, bytes: usize) {
        self.out.truncate(bytes);
        self.flush().await;
    }

    pub(crate) fn unsent(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn connect(&mut self, link: Link, client_id: &str, keep_alive_s: u16, receive_max: u16, asked: &Asked) {
        let payload = Name::Will { client: link.client, connection: link.connection }.to_string();
        let is_v5 = self.version == ProtocolVersion::V5;
        let will = asked.will.as_ref().map(|will| Will {
            qos: qos(will.qos),
            retain: will.retain,
            topic: &will.topic,
            payload: payload.as_bytes(),
            delay_s: (is_v5 && will.delay_s > 0).then_some(will.delay_s),
            properties: PublishProperties::default(),
        });
        let properties = ConnectProperties {
            session_expiry_s: (is_v5 && asked.expiry_s > 0).then_some(asked.expiry_s),
            receive_maximum: NonZeroU16::new(receive_max),
            ..ConnectProperties::default()
        };
        self.put(&Packet::Connect(Box::new(Connect {
            version: self.version,
            clean_start: asked.clean_start,
            keep_alive_s,
            client_id,
            will,
            username: None,
            password: None,
            properties,
        })));
    }

    pub(crate) fn publish(&mut self, id: u16, message: &Message, dup: bool, padding: usize) {
        let mut payload = message.name.to_string();
        if padding > 0 && message.name != Name::Clear {
            payload.push('|');
            payload.extend(std::iter::repeat_n('.', padding));
        }
        let delivery = match message.qos {
            0 => Delivery::AtMostOnce,
            1 => Delivery::AtLeastOnce(packet_id(id)),
            _ => Delivery::ExactlyOnce(packet_id(id)),
        };
        let properties = PublishProperties::default();
        let (topic, payload) = (message.topic.as_str(), payload.as_bytes());
        self.put(&Packet::Publish(Publish { dup, delivery, retain: message.retain, topic, properties, payload }));
    }

    pub(crate) fn release(&mut self, id: u16) {
        self.put(&Packet::PubRel(ack(id)));
    }

    pub(crate) fn owed(&mut self, owed: Owed) {
        self.put(&match owed {
            Owed::Ack(id) => Packet::PubAck(ack(id)),
            Owed::Received(id) => Packet::PubRec(ack(id)),
            Owed::Release(id) => Packet::PubRel(ack(id)),
            Owed::Complete(id) => Packet::PubComp(ack(id)),
        });
    }

    pub(crate) fn subscribe(&mut self, id: u16, filters: &[(String, u8)]) {
        let filters = filters.iter().map(|(filter, max)| SubscribeFilter {
            filter,
            options: SubscribeOptions { qos: qos(*max), ..SubscribeOptions::default() },
        });
        let filters = filters.collect();
        let user_properties = UserProperties::default();
        let subscribe = Subscribe { packet_id: packet_id(id), subscription_id: None, user_properties, filters };
        self.put(&Packet::Subscribe(subscribe));
    }

    pub(crate) fn unsubscribe(&mut self, id: u16, filters: &[String]) {
        let filters = filters.iter().map(String::as_str).collect();
        let user_properties = UserProperties::default();
        self.put(&Packet::Unsubscribe(Unsubscribe { packet_id: packet_id(id), user_properties, filters }));
    }

    pub(crate) fn ping(&mut self) {
        self.put(&Packet::PingReq);
    }

    pub(crate) fn disconnect(&mut self, with_will: bool) {
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let properties = ReasonProperties::default();
        self.put(&Packet::Disconnect(Disconnect {
            reason,
            session_expiry_s: None,
            server_reference: None,
            properties,
        }));
    }
}

fn qos(number: u8) -> QoS {
    QoS::from_u8(number).unwrap()
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn ack(id: u16) -> Ack<'static> {
    Ack { packet_id: packet_id(id), reason: ReasonCode::Success, properties: ReasonProperties::default() }
}
