//! A client that does what a test says, packet by packet or byte by byte, and nothing on its own.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{
    ConnAck, Connect, Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS, SubscribeOptions,
};
use millrace::mqtt::{ReasonCode, encode};

use crate::fixture::TestNode;
use crate::frame::unexpected;
pub(crate) use crate::frame::{Frame, Message};
use crate::packets::{
    ack, connect, disconnect, disconnect_with_expiry, packet_id, publish, publish_1, publish_2, subscribe_with,
    unsubscribe,
};

/// What has not come by then does not come.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A dead node is evicted after ten seconds and more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A socket that speaks one version.
pub(crate) struct RawClient {
    stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
    /// Packets that came before the one that was waited for.
    early: VecDeque<Frame>,
    last_id: u16,
}

impl RawClient {
    /// A connection on which nothing was said yet.
    pub(crate) fn open(node: &TestNode, version: ProtocolVersion) -> Self {
        Self::open_at(node.mqtt, version)
    }

    /// [`RawClient::open`] where there is only an address.
    pub(crate) fn open_at(address: SocketAddr, version: ProtocolVersion) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self { stream, version, received: Vec::new(), early: VecDeque::new(), last_id: 0 }
    }

    /// Whether nobody serves connections at this address any more.
    pub(crate) fn is_refused_at(address: SocketAddr) -> bool {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// A connected client with a clean session.
    #[track_caller]
    pub(crate) fn connected(node: &TestNode, version: ProtocolVersion, client_id: &str) -> Self {
        Self::connected_with(node, &connect(version, client_id))
    }

    /// A client that this CONNECT is accepted from.
    #[track_caller]
    pub(crate) fn connected_with(node: &TestNode, connect: &Connect<'_>) -> Self {
        let mut client = Self::open(node, connect.version);
        client.send_connect(connect);
        client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
        client
    }

    /// A client that this CONNECT is accepted from, and that is told whether there is a session already.
    #[track_caller]
    pub(crate) fn resumed(node: &TestNode, connect: &Connect<'_>, session_present: bool) -> Self {
        let mut client = Self::open(node, connect.version);
        client.send_connect(connect);
        client.expect_connack(|connack| {
            assert_eq!((connack.reason, connack.session_present), (ReasonCode::Success, session_present));
        });
        client
    }

    /// A connected client, under a client id that no other has, with one subscription.
    #[track_caller]
    pub(crate) fn subscribed(node: &TestNode, version: ProtocolVersion, filter: &str, qos: QoS) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut client = Self::connected(node, version, &format!("s-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        client.subscribe(filter, qos);
        client
    }

    // ---- sending

    /// The next packet id.
    pub(crate) fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// A packet in its wire form.
    pub(crate) fn wire(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode::packet(packet, self.version, usize::MAX, &mut out).unwrap();
        out.to_vec()
    }

    /// Sends bytes, whatever they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes to a server that may have closed already.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) {
        // Whether the server still reads is what the test finds out next.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a packet.
    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let bytes = self.wire(packet);
        self.send_bytes(&bytes);
    }

    /// Sends CONNECT.
    pub(crate) fn send_connect(&mut self, connect: &Connect<'_>) {
        self.send(&Packet::Connect(Box::new(connect.clone())));
    }

    /// Sends PUBLISH.
    pub(crate) fn send_publish(&mut self, publish: &Publish<'_>) {
        self.send(&Packet::Publish(publish.clone()));
    }

    /// Subscribes to one filter and is granted this QoS.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.subscribe_to(None, filter, SubscribeOptions { qos, ..SubscribeOptions::default() });
    }

    /// Subscribes to one filter with options and is granted its QoS.
    #[track_caller]
    pub(crate) fn subscribe_to(&mut self, subscription_id: Option<u32>, filter: &str, options: SubscribeOptions) {
        let id = self.next_id();
        self.send(&subscribe_with(id, subscription_id, &[(filter, options)]));
        let granted = match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        self.expect_suback(id, &[granted]);
    }

    /// Gives up subscriptions that exist.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) {
        let id = self.next_id();
        self.send(&unsubscribe(id, filters));
        let reasons = vec![ReasonCode::Success; filters.len()];
        self.expect_unsuback(id, &reasons);
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let id = self.next_id();
        self.send_publish(&publish_1(id, topic, payload.as_ref()));
        self.expect_puback(id);
    }

    /// Publishes with QoS 2, to the end of the exchange.
    #[track_caller]
    pub(crate) fn publish_exactly_once(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let id = self.next_id();
        self.send_publish(&publish_2(id, topic, payload.as_ref()));
        self.expect_pubrec(id);
        self.release(id);
        self.expect_pubcomp(id);
    }

    /// Sends PUBREL.
    pub(crate) fn release(&mut self, id: u16) {
        self.send(&Packet::PubRel(ack(packet_id(id))));
    }

    /// Publishes with QoS 0.
    pub(crate) fn publish_unanswered(&mut self, topic: &str, payload: &str) {
        self.send_publish(&publish(topic, payload.as_bytes()));
    }

    /// Publishes this with QoS 1 and waits for the PUBACK.
    #[track_caller]
    pub(crate) fn publish_with(&mut self, publish: &Publish<'_>) {
        let id = self.next_id();
        let delivery = Delivery::AtLeastOnce(PacketId::new(id).unwrap());
        self.send_publish(&Publish { delivery, ..publish.clone() });
        self.expect_puback(id);
    }

    // ---- receiving

    /// From now on it waits as long as a dead node is given, and more.
    pub(crate) fn be_patient(&self) {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The next packet, whatever it is.
    #[track_caller]
    pub(crate) fn expect(&mut self) -> Frame {
        match self.next_frame() {
            Some(frame) => frame,
            None => panic!("the server closed the connection"),
        }
    }

    #[track_caller]
    fn next_frame(&mut self) -> Option<Frame> {
        self.early.pop_front().or_else(|| self.read_frame())
    }

    #[track_caller]
    fn read_frame(&mut self) -> Option<Frame> {
        loop {
            let head = frame_head(&self.received, Some(self.version), Sender::Server, usize::MAX);
            let head = head.unwrap_or_else(|error| panic!("the server sent {:02x?}: {error}", self.received));
            if let Some(bytes) = head.map(|head| head.frame_bytes()).filter(|bytes| *bytes <= self.received.len()) {
                let rest = self.received.split_off(bytes);
                let bytes = std::mem::replace(&mut self.received, rest);
                return Some(Frame::new(bytes, self.version));
            }
            if !self.receive() {
                return None;
            }
        }
    }

    /// False at the end of the connection.
    #[track_caller]
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came from the server within {LIMIT:?}")
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// A CONNACK that `judge` is content with.
    #[track_caller]
    pub(crate) fn expect_connack(&mut self, judge: impl FnOnce(&ConnAck<'_>)) {
        let frame = self.expect();
        match frame.packet() {
            Packet::ConnAck(connack) => judge(&connack),
            other => unexpected(&other, "CONNACK"),
        }
    }

    /// The PUBACK of a success.
    #[track_caller]
    pub(crate) fn expect_puback(&mut self, id: u16) {
        self.expect_puback_with(id, ReasonCode::Success);
    }

    /// A PUBACK.
    #[track_caller]
    pub(crate) fn expect_puback_with(&mut self, id: u16, reason: ReasonCode) {
        let frame = self.expect();
        match frame.packet() {
            Packet::PubAck(ack) => assert_eq!((ack.packet_id.get(), ack.reason), (id, reason)),
            other => unexpected(&other, &format!("PUBACK {id}")),
        }
    }

    /// The PUBREC of a success.
    #[track_caller]
    pub(crate) fn expect_pubrec(&mut self, id: u16) {
        let frame = self.expect();
        match frame.packet() {
            Packet::PubRec(ack) => assert_eq!((ack.packet_id.get(), ack.reason), (id, ReasonCode::Success)),
            other => unexpected(&other, &format!("PUBREC {id}")),
        }
    }

    /// A PUBREL.
    #[track_caller]
    pub(crate) fn expect_pubrel(&mut self, id: u16) {
        let frame = self.expect();
        match frame.packet() {
            Packet::PubRel(ack) => assert_eq!((ack.packet_id.get(), ack.reason), (id, ReasonCode::Success)),
            other => unexpected(&other, &format!("PUBREL {id}")),
        }
    }

    /// The PUBCOMP of a success.
    #[track_caller]
    pub(crate) fn expect_pubcomp(&mut self, id: u16) {
        let frame = self.expect();
        match frame.packet() {
            Packet::PubComp(ack) => assert_eq!((ack.packet_id.get(), ack.reason), (id, ReasonCode::Success)),
            other => unexpected(&other, &format!("PUBCOMP {id}")),
        }
    }

    /// A SUBACK.
    #[track_caller]
    pub(crate) fn expect_suback(&mut self, id: u16, reasons: &[ReasonCode]) {
        let frame = self.expect();
        match frame.packet() {
            Packet::SubAck(suback) => assert_eq!((suback.packet_id.get(), &*suback.reasons), (id, reasons)),
            other => unexpected(&other, &format!("SUBACK {id}")),
        }
    }

    /// An UNSUBACK; 3.x has no reasons in it.
    #[track_caller]
    pub(crate) fn expect_unsuback(&mut self, id: u16, reasons: &[ReasonCode]) {
        let reasons = if self.version == ProtocolVersion::V5 { reasons } else { &[] };
        let frame = self.expect();
        match frame.packet() {
            Packet::UnsubAck(unsuback) => assert_eq!((unsuback.packet_id.get(), &*unsuback.reasons), (id, reasons)),
            other => unexpected(&other, &format!("UNSUBACK {id}")),
        }
    }

    /// A PUBLISH, acknowledged if it asks for it.
    #[track_caller]
    pub(crate) fn expect_message(&mut self) -> Message {
        let message = self.expect_unacknowledged();
        self.acknowledge(&message);
        message
    }

    /// A PUBLISH with this topic and payload, acknowledged if it asks for it.
    #[track_caller]
    pub(crate) fn expect_text(&mut self, topic: &str, payload: &str) -> Message {
        let message = self.expect_message();
        assert_eq!((message.topic.as_str(), message.text()), (topic, payload));
        message
    }

    /// A PUBLISH, not acknowledged.
    #[track_caller]
    pub(crate) fn expect_unacknowledged(&mut self) -> Message {
        self.expect().message()
    }

    /// Sends the PUBACK of a message of QoS 1; takes one of QoS 2 to the end of the exchange.
    #[track_caller]
    pub(crate) fn acknowledge(&mut self, message: &Message) {
        match message.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => self.send(&Packet::PubAck(ack(id))),
            Delivery::ExactlyOnce(id) => {
                self.receive_id(id.get());
                // Other messages may come before PUBREL.
                while let Some(frame) = self.read_frame() {
                    if matches!(frame.packet(), Packet::PubRel(ack) if ack.packet_id == id) {
                        break;
                    }
                    self.early.push_back(frame);
                }
                self.complete_id(id.get());
            }
        }
    }

    /// Sends PUBREC.
    pub(crate) fn receive_id(&mut self, id: u16) {
        self.send(&Packet::PubRec(ack(packet_id(id))));
    }

    /// Sends PUBCOMP.
    pub(crate) fn complete_id(&mut self, id: u16) {
        self.send(&Packet::PubComp(ack(packet_id(id))));
    }

    /// Says goodbye: a normal DISCONNECT. The server closes.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.send(&disconnect(ReasonCode::Success));
        self.expect_closed();
    }

    /// PINGREQ is answered, and nothing was sent before the answer.
    #[track_caller]
    pub(crate) fn expect_nothing_before_pingresp(&mut self) {
        self.send(&Packet::PingReq);
        let frame = self.expect();
        match frame.packet() {
            Packet::PingResp => {}
            other => unexpected(&other, "PINGRESP"),
        }
    }

    /// The server ends the connection for this reason, which MQTT 5 is told.
    #[track_caller]
    pub(crate) fn expect_end(&mut self, reason: ReasonCode) {
        if self.version == ProtocolVersion::V5 {
            let frame = self.expect();
            match frame.packet() {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
                other => unexpected(&other, "DISCONNECT"),
            }
        }
        self.expect_closed();
    }

    /// The server closes the connection and sends nothing more.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        if let Some(frame) = self.next_frame() {
            unexpected(&frame.packet(), "the end of the connection");
        }
        assert_eq!(self.received, [0; 0], "the connection ended within a packet");
    }

    /// Says goodbye to a session of MQTT 5 that lasts, and ends it.
    #[track_caller]
    pub(crate) fn leave_for_good(mut self) {
        self.send(&disconnect_with_expiry(0));
        self.expect_closed();
    }

    /// Ends the connection without DISCONNECT; its node, where nothing else comes or goes, has noticed when this returns.
    pub(crate) fn vanish(self, node: &TestNode) {
        const OPEN: &str = "millrace_connections_open";
        let open = node.metric(OPEN);
        self.break_off();
        node.wait_for_metric(OPEN, open - 1.0);
    }

    /// Ends the connection without DISCONNECT.
    pub(crate) fn break_off(self) {
        // A socket that the server closed first is closed.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
