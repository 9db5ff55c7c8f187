//! Labels whose values are known beforehand, so that counting costs an array index and an atomic add.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, in the order of [`Label::index`].
    const VALUES: &'static [&'static str];
    /// Which of [`Label::VALUES`] this is.
    fn index(self) -> usize;
}

/// A counter for each value of `L`.
#[derive(Debug)]
pub struct Counters<L> {
    all: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Registers `name` with all its label values at 0.
    pub(super) fn new(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), &[L::NAME])?;
        let all =
            L::VALUES.iter().map(|value| family.get_metric_with_label_values(&[value])).collect::<Result<_, _>>()?;
        registry.register(Box::new(family) as Box<dyn Collector>)?;
        Ok(Self { all, label: PhantomData })
    }

    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.all.get(label.index()) {
            counter.inc_by(n);
        }
    }

    /// What was counted so far.
    pub fn count(&self, label: L) -> u64 {
        self.all.get(label.index()).map_or(0, IntCounter::get)
    }
}

/// An enum that is a [`Label`].
macro_rules! label {
    ($(#[$doc:meta])* $type:ident as $name:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl Label for $type {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($value),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Why a connection was not served.
    RefuseReason as "reason" {
        /// `limits.connections_max` is reached.
        TooMany = "too_many",
        /// No whole CONNECT within `limits.connect_timeout`.
        ConnectTimeout = "connect_timeout",
        /// The first packet was not a valid CONNECT.
        Malformed = "malformed",
        /// A protocol version that is not spoken here.
        Version = "version",
        /// The client id is too long or not allowed.
        ClientId = "client_id",
        /// Credentials missing or wrong.
        NotAuthorized = "not_authorized",
        /// A feature that this release does not have.
        Unsupported = "unsupported",
        /// Kafka is away, or the node is not ready.
        Unavailable = "unavailable",
        /// The node is leaving.
        Draining = "draining",
    }
}

label! {
    /// Why a served connection ended.
    CloseCause as "cause" {
        /// The client sent DISCONNECT.
        Disconnect = "disconnect",
        /// The socket ended without DISCONNECT.
        Lost = "lost",
        /// Nothing came for one and a half keep-alives.
        KeepAlive = "keep_alive",
        /// The client sent something malformed or against the protocol.
        Protocol = "protocol",
        /// A limit was exceeded (packet size, receive maximum, quota).
        Limit = "limit",
        /// Another connection took the session over.
        TakenOver = "taken_over",
        /// The socket took nothing for `limits.slow_timeout`.
        Slow = "slow",
        /// The node is leaving.
        Drained = "drained",
        /// Anything that is our fault.
        Internal = "internal",
    }
}

label! {
    /// Why a message was not delivered or not taken.
    DropReason as "why" {
        /// The client's outgoing queue is full.
        QueueFull = "queue_full",
        /// Its expiry passed.
        Expired = "expired",
        /// Larger than the client's Maximum Packet Size or than the kafka topic takes.
        TooLarge = "too_large",
        /// The socket was not writable (QoS 0).
        NotWritable = "not_writable",
        /// Kafka is away and the append budget is full (QoS 0).
        KafkaAway = "kafka_away",
        /// Kafka refused the record.
        Refused = "refused",
    }
}

/// A control packet's type: the upper half of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketType(u8);

impl PacketType {
    /// From the first byte of a packet.
    pub const fn of(first: u8) -> Self {
        Self(first >> 4)
    }
}

impl Label for PacketType {
    const NAME: &'static str = "type";
    const VALUES: &'static [&'static str] = &[
        "reserved",
        "connect",
        "connack",
        "publish",
        "puback",
        "pubrec",
        "pubrel",
        "pubcomp",
        "subscribe",
        "suback",
        "unsubscribe",
        "unsuback",
        "pingreq",
        "pingresp",
        "disconnect",
        "auth",
    ];

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A quality of service, as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QosLabel(u8);

impl QosLabel {
    /// From the number on the wire; above 2 counts as 2.
    pub const fn of(qos: u8) -> Self {
        Self(if qos > 2 { 2 } else { qos })
    }
}

impl From<crate::mqtt::QoS> for QosLabel {
    fn from(qos: crate::mqtt::QoS) -> Self {
        Self(qos.as_u8())
    }
}

impl Label for QosLabel {
    const NAME: &'static str = "qos";
    const VALUES: &'static [&'static str] = &["0", "1", "2"];

    fn index(self) -> usize {
        usize::from(self.0)
    }
}
