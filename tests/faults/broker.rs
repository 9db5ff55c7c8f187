//! MQTT clients in number, each with a connection of its own that must not be closed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{
    Ack, Connect, ConnectProperties, Delivery, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonProperties, Subscribe, SubscribeFilter, SubscribeOptions,
};
use millrace::mqtt::properties::UserProperties;
use millrace::mqtt::{ReasonCode, decode, encode};
use millrace::ops::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::time::interval;

const VERSION: ProtocolVersion = ProtocolVersion::V311;
const KEEP_ALIVE_S: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(20);
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// What a client publishes or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes at QoS 1, with so many unacknowledged at most.
    Publisher { window: usize },
    /// Subscribes with QoS 1.
    Subscriber,
}

/// What a client has done and seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// CONNACK, and SUBACK for subscribers, came.
    pub ready: bool,
    /// Messages sent, numbered from 0.
    pub sent: u64,
    /// Numbers of those acknowledged, in the order of their acknowledgements.
    pub acked: Vec<u64>,
    /// Numbers received, in order.
    pub received: Vec<u64>,
    pub pings_answered: u64,
    /// How the connection ended.
    pub closed: Option<String>,
}

pub struct Client {
    pub topic: String,
    pub role: Role,
    record: Arc<Mutex<Record>>,
}

impl Client {
    /// Starts a client on its topic; it publishes until `publishing` says no.
    pub fn start(address: SocketAddr, role: Role, number: usize, publishing: watch::Receiver<bool>) -> Self {
        let topic = format!("faults/{number}");
        let record = Arc::new(Mutex::new(Record::default()));
        let driver = Driver { topic: topic.clone(), role, record: Arc::clone(&record), number, publishing, pings: 0 };
        tasks::spawn("client", driver.run(address));
        Self { topic, role, record }
    }

    pub fn record(&self) -> Record {
        self.record.lock().unwrap().clone()
    }
}

struct Driver {
    topic: String,
    role: Role,
    record: Arc<Mutex<Record>>,
    number: usize,
    publishing: watch::Receiver<bool>,
    pings: u64,
}

impl Driver {
    async fn run(mut self, address: SocketAddr) {
        let end = match TcpStream::connect(address).await {
            Ok(stream) => self.serve(stream).await,
            Err(error) => error.to_string(),
        };
        self.record.lock().unwrap().closed = Some(end);
    }

    async fn serve(&mut self, stream: TcpStream) -> String {
        let (mut reader, mut writer) = stream.into_split();
        let mut received = BytesMut::new();
        let mut publish = interval(PUBLISH_EVERY);
        let mut ping = interval(PING_EVERY);
        ping.tick().await;
        let client_id = format!("faults-{}-{}", self.number, matches!(self.role, Role::Subscriber));
        let mut result = send(&mut writer, &connect(&client_id)).await;
        while result.is_ok() {
            result = tokio::select! {
                read = reader.read_buf(&mut received) => match read {
                    Ok(0) => return "the broker closed the connection".to_owned(),
                    Ok(_) => self.handle(&mut received, &mut writer).await,
                    Err(error) => return format!("the connection broke: {error}"),
                },
                _ = publish.tick() => self.publish(&mut writer).await,
                _ = ping.tick() => {
                    self.pings += 1;
                    send(&mut writer, &Packet::PingReq).await
                }
            };
        }
        format!("{result:?}")
    }

    async fn publish(&mut self, writer: &mut OwnedWriteHalf) -> Result<(), String> {
        let Role::Publisher { window } = self.role else { return Ok(()) };
        let number = {
            let mut record = self.record.lock().unwrap();
            if !record.ready || !*self.publishing.borrow() || record.open() >= window {
                return Ok(());
            }
            record.sent += 1;
            record.sent - 1
        };
        let payload = number.to_string();
        let publish = Publish {
            dup: false,
            delivery: Delivery::AtLeastOnce(packet_id(number)),
            retain: false,
            topic: &self.topic,
            properties: PublishProperties::default(),
            payload: payload.as_bytes(),
        };
        send(writer, &Packet::Publish(publish)).await
    }

    /// Handles whole packets.
    async fn handle(&mut self, received: &mut BytesMut, writer: &mut OwnedWriteHalf) -> Result<(), String> {
        loop {
            let head = frame_head(received, Some(VERSION), Sender::Server, usize::MAX).map_err(|e| e.to_string())?;
            let Some(bytes) = head.map(|head| head.frame_bytes()).filter(|bytes| *bytes <= received.len()) else {
                return Ok(());
            };
            let frame = received.split_to(bytes);
            let packet = decode::packet(&frame, Some(VERSION), Sender::Server).map_err(|e| e.to_string())?;
            if let Some(answer) = self.handle_packet(&packet)? {
                send(writer, &answer).await?;
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else was asked for")]
    fn handle_packet(&self, packet: &Packet<'_>) -> Result<Option<Packet<'static>>, String> {
        let mut record = self.record.lock().unwrap();
        match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => {
                if self.role == Role::Subscriber {
                    return Ok(Some(subscribe(self.topic.clone())));
                }
                record.ready = true;
            }
            Packet::SubAck(_) => record.ready = true,
            Packet::PubAck(ack) => {
                let number = record.acked.len() as u64;
                if packet_id(number) != ack.packet_id {
                    return Err(format!("PUBACK of {} where message {number} was to be acknowledged", ack.packet_id));
                }
                record.acked.push(number);
            }
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok());
                record.received.push(number.ok_or("a message that nobody sent")?);
                let ack = publish.delivery.packet_id().map(|packet_id| Ack {
                    packet_id,
                    reason: ReasonCode::Success,
                    properties: ReasonProperties::default(),
                });
                return Ok(ack.map(Packet::PubAck));
            }
            Packet::PingResp => record.pings_answered += 1,
            other => return Err(format!("the broker sent {other:?}")),
        }
        Ok(None)
    }
}

impl Record {
    /// Sent and not acknowledged.
    pub fn open(&self) -> usize {
        usize::try_from(self.sent).unwrap() - self.acked.len()
    }
}

/// Packet ids are the numbers from 1 on; nobody sends so many that they come again.
fn packet_id(number: u64) -> PacketId {
    PacketId::new(u16::try_from(number + 1).unwrap()).unwrap()
}

fn connect(client_id: &str) -> Packet<'_> {
    Packet::Connect(Box::new(Connect {
        version: VERSION,
        clean_start: true,
        keep_alive_s: KEEP_ALIVE_S,
        client_id,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }))
}

fn subscribe(filter: String) -> Packet<'static> {
    // Once for each client of a test.
    let filter: &'static str = filter.leak();
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(0),
        subscription_id: None,
        user_properties: UserProperties::default(),
        filters: vec![SubscribeFilter { filter, options }],
    })
}

async fn send(writer: &mut OwnedWriteHalf, packet: &Packet<'_>) -> Result<(), String> {
    let mut out = BytesMut::new();
    encode::packet(packet, VERSION, usize::MAX, &mut out).map_err(|error| error.to_string())?;
    writer.write_all(&out).await.map_err(|error| format!("the connection broke: {error}"))
}
