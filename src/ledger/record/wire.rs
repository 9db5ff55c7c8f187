//! The values as protobuf: `docs/records.proto` in Rust. Numbers of fields never change and are never used again.

/// H.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Claim {
    #[prost(bytes = "vec", tag = "1")]
    pub incarnation: Vec<u8>,
}

/// K.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeeperClaim {
    #[prost(bytes = "vec", tag = "1")]
    pub incarnation: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub expected: Vec<u8>,
}

/// S, part *set*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Set {
    #[prost(uint32, tag = "1")]
    pub generation: u32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub incarnation: Vec<u8>,
    #[prost(uint32, tag = "4")]
    pub version: u32,
    #[prost(uint32, tag = "5")]
    pub expiry_s: u32,
    #[prost(string, tag = "6")]
    pub identity: String,
    #[prost(uint32, tag = "7")]
    pub life: u32,
    #[prost(message, optional, tag = "8")]
    pub will: Option<Will>,
    #[prost(message, repeated, tag = "9")]
    pub subscriptions: Vec<Subscription>,
    #[prost(message, optional, tag = "10")]
    pub position: Option<Position>,
    #[prost(message, optional, tag = "11")]
    pub inbound: Option<Inbound>,
    #[prost(message, optional, tag = "12")]
    pub outbound: Option<Outbound>,
    #[prost(int64, tag = "13")]
    pub since_ms: i64,
    #[prost(message, repeated, tag = "14")]
    pub due: Vec<DueWill>,
}

/// S, part *subs*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionsPart {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, repeated, tag = "2")]
    pub subscriptions: Vec<Subscription>,
    #[prost(message, optional, tag = "3")]
    pub position: Option<Position>,
}

/// S, part *pos*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PositionPart {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub position: Option<Position>,
}

/// S, part *q2in*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InboundPart {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub inbound: Option<Inbound>,
}

/// S, part *q2out*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OutboundPart {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub outbound: Option<Outbound>,
}

/// S, part *due*.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DuePart {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, repeated, tag = "2")]
    pub due: Vec<DueWill>,
}

/// F.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Final {
    #[prost(message, optional, tag = "1")]
    pub inbound: Option<Inbound>,
    #[prost(bool, tag = "2")]
    pub no_will: bool,
}

/// W.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Watermark {
    #[prost(message, repeated, tag = "1")]
    pub done: Vec<Marks>,
    #[prost(message, repeated, tag = "2")]
    pub tokens: Vec<Marks>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Will {
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub delay_s: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub publish: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DueWill {
    #[prost(message, optional, tag = "1")]
    pub will: Option<Will>,
    #[prost(message, optional, tag = "2")]
    pub from: Option<Origin>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Subscription {
    #[prost(string, tag = "1")]
    pub filter: String,
    #[prost(uint32, tag = "2")]
    pub options: u32,
    #[prost(uint32, optional, tag = "3")]
    pub id: Option<u32>,
    #[prost(message, repeated, tag = "4")]
    pub starts: Vec<Marks>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Position {
    #[prost(bool, tag = "1")]
    pub following: bool,
    #[prost(message, repeated, tag = "2")]
    pub from: Vec<Marks>,
    #[prost(message, repeated, tag = "3")]
    pub in_flight: Vec<InFlight>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Marks {
    #[prost(fixed32, tag = "1")]
    pub topic: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub partitions: Vec<u32>,
    #[prost(int64, repeated, tag = "3")]
    pub offsets: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InFlight {
    #[prost(uint32, tag = "1")]
    pub packet_id: u32,
    #[prost(message, optional, tag = "2")]
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Origin {
    #[prost(fixed32, tag = "1")]
    pub topic: u32,
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    #[prost(int64, tag = "3")]
    pub offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Inbound {
    #[prost(uint32, tag = "1")]
    pub high: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub held: Vec<u32>,
    #[prost(message, repeated, tag = "3")]
    pub pending: Vec<Pending>,
    #[prost(message, repeated, tag = "4")]
    pub unresolved: Vec<Unresolved>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Pending {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint32, tag = "2")]
    pub packet_id: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unresolved {
    #[prost(bytes = "vec", tag = "1")]
    pub nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub incarnation: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub high: u32,
    #[prost(message, repeated, tag = "4")]
    pub pending: Vec<Pending>,
    #[prost(uint32, repeated, tag = "5")]
    pub released: Vec<u32>,
    #[prost(message, repeated, tag = "6")]
    pub looked: Vec<Places>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Places {
    #[prost(fixed32, tag = "1")]
    pub topic: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub partitions: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Outbound {
    #[prost(message, repeated, tag = "1")]
    pub open: Vec<OpenDelivery>,
    #[prost(message, repeated, tag = "2")]
    pub sent_to: Vec<Marks>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct OpenDelivery {
    #[prost(uint32, tag = "1")]
    pub packet_id: u32,
    #[prost(message, optional, tag = "2")]
    pub origin: Option<Origin>,
    #[prost(bool, tag = "3")]
    pub released: bool,
}

/// `mqtt.cluster`, node.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int64, tag = "2")]
    pub producer_id: i64,
    #[prost(uint64, tag = "3")]
    pub beat: u64,
    #[prost(int64, tag = "4")]
    pub started_ms: i64,
    #[prost(bool, tag = "5")]
    pub left: bool,
}

/// `mqtt.cluster`, eviction and fenced.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct By {
    #[prost(bytes = "vec", tag = "1")]
    pub incarnation: Vec<u8>,
}

/// `mqtt.cluster`, kafka topic.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KafkaTopic {
    #[prost(fixed32, tag = "1")]
    pub number: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub partitions: u32,
}

/// `mqtt.cluster`, fingerprint.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Fingerprint {
    #[prost(uint32, tag = "2")]
    pub sessions_partitions: u32,
    #[prost(uint32, tag = "3")]
    pub retained_partitions: u32,
}

/// `mqtt.cluster`, generation.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Generation {
    #[prost(uint32, tag = "1")]
    pub number: u32,
}
