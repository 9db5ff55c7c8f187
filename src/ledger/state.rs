//! A session's durable state as values: what a take-over inherits and what the parts of it are.
//!
//! The state of a nonce is its *set* (everything, one record: F4) and, for each [`Part`], the record of that part if it
//! is younger than the set.

use crate::mqtt::packet::SubscribeOptions;
use crate::mqtt::{PacketId, TopicFilter};

use super::ids::{Incarnation, Nonce, Origin, Place};

/// Everything that outlives a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Seconds that the session outlives its connection; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// Who the client was authenticated as; another identity may not resume the session.
    pub identity: Box<str>,
    /// Whether there is a connection.
    pub life: Life,
    /// To be published when the connection ends without a normal DISCONNECT.
    pub will: Option<Will>,
    /// Wills that are due and perhaps not published yet (V2).
    pub due: Vec<DueWill>,
    /// Sorted by filter.
    pub subscriptions: Vec<SubscriptionState>,
    /// From where on messages are still to be delivered.
    pub position: Position,
    /// QoS 2 publishes of the client that are not complete.
    pub inbound: Inbound,
    /// QoS 2 messages to the client that are not complete.
    pub outbound: Outbound,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Its node says that it is connected.
    #[default]
    Connected,
    /// There is none.
    Disconnected {
        /// Since when, milliseconds of `LogAppendTime`; 0: since the record was appended.
        since_ms: i64,
    },
    /// It ended (F10).
    Deleted,
}

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The claim under which it was armed: its token (V1).
    pub nonce: Nonce,
    /// Seconds between the end of the connection and its publication.
    pub delay_s: u32,
    /// A PUBLISH in the wire form of MQTT 5.
    pub publish: Box<[u8]>,
}

/// A will that is to be published (V2), unless its token is found in its partition from `from` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueWill {
    /// What to publish.
    pub will: Will,
    /// End of the will's message partition when it became due.
    pub from: Origin,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionState {
    /// What it matches.
    pub filter: TopicFilter,
    /// Options, with the QoS that was granted.
    pub options: SubscribeOptions,
    /// Subscription identifier.
    pub id: Option<u32>,
    /// Where it starts, in partitions in which the session's position is before that: what is older is not for it.
    pub starts: Vec<(Place, i64)>,
}

impl SubscriptionState {
    /// Forgets the starts that the session's position has come to.
    pub fn forget_passed(&mut self, position: &[(Place, i64)]) {
        self.starts.retain(|&(place, start)| position.iter().any(|&(other, at)| other == place && at < start));
    }
}

/// From where on messages are still to be delivered (DESIGN §5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The node's watermarks count, too: the session kept up when this was written.
    pub following: bool,
    /// Sorted by place: every message of QoS 1 or 2 before it is acknowledged or in [`Outbound`]. Every partition that
    /// the subscriptions can touch is here.
    pub from: Vec<(Place, i64)>,
    /// Messages at or after [`Position::from`] that were sent and not acknowledged, in the order sent: they keep their
    /// packet ids. Only known where the node saw the connection end.
    pub in_flight: Vec<(PacketId, Origin)>,
}

/// QoS 2 from the client (DESIGN §5.2): of the own nonce's tokens up to [`Inbound::high`], those that are neither held nor
/// pending were released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    /// Highest token number that this record says anything about.
    pub high: u32,
    /// In the log and not released: a PUBLISH with such an id is answered with PUBREC and not appended. Sorted.
    pub held: Vec<PacketId>,
    /// Own tokens whose append has no outcome yet.
    pub pending: Vec<(u32, PacketId)>,
    /// Lower nonces whose tokens were not all looked up, oldest first.
    pub unresolved: Vec<Unresolved>,
}

/// A nonce that ended without saying which of its tokens are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Whose tokens.
    pub nonce: Nonce,
    /// Its node, from whose watermark `tokens` on they are looked for.
    pub incarnation: Incarnation,
    /// Tokens up to this number were released unless they are pending.
    pub high: u32,
    /// Tokens up to `high` that are to be looked for nevertheless.
    pub pending: Vec<(u32, PacketId)>,
    /// Every token with one of these ids was released (Q4). Sorted.
    pub released: Vec<PacketId>,
    /// Partitions that were looked through. Sorted.
    pub looked: Vec<Place>,
}

/// QoS 2 to the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Not complete, in the order sent.
    pub open: Vec<OpenDelivery>,
    /// Per place the highest offset of a QoS 2 message that was ever in `open`: what is not there any more, up to this
    /// offset, is complete. Sorted by place.
    pub sent_to: Vec<(Place, i64)>,
}

/// One QoS 2 delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenDelivery {
    /// Its packet id.
    pub packet_id: PacketId,
    /// Which message.
    pub origin: Origin,
    /// PUBREC came: PUBREL is sent, the message never again.
    pub released: bool,
}

/// A part of the state that changes on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Subscriptions, with the position that they start from.
    Subscriptions(Vec<SubscriptionState>, Position),
    /// The position.
    Position(Position),
    /// QoS 2 from the client.
    Inbound(Inbound),
    /// QoS 2 to the client.
    Outbound(Outbound),
    /// Wills that are due.
    Due(Vec<DueWill>),
}

impl SessionState {
    /// With one part replaced.
    pub fn set_part(&mut self, part: Part) {
        match part {
            Part::Subscriptions(subscriptions, position) => {
                self.subscriptions = subscriptions;
                self.position = position;
            }
            Part::Position(position) => self.position = position,
            Part::Inbound(inbound) => self.inbound = inbound,
            Part::Outbound(outbound) => self.outbound = outbound,
            Part::Due(due) => self.due = due,
        }
    }
}
