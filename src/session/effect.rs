//! What a session asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Follow, Outgoing, OwnedPublish, Wish};
use crate::ledger::ids::{Place, Token};
use crate::ledger::state::{Part, Unresolved};
use crate::mqtt::{PacketId, ReasonCode, TopicFilter};

/// What must happen outside.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a packet.
    Send(Outgoing),
    /// Make the session this connection's, then [`super::Input::Granted`] or [`super::Input::Denied`]. A session that
    /// [needs no claim](Wish::needs_claim) is granted at once, with a new nonce.
    Claim(Box<Wish>),
    /// Write a part of the session's state, then [`super::Input::Persisted`] when it was read back. Records are written
    /// in the order of these effects.
    Persist {
        /// Names the record.
        sequence: u64,
        /// What is in it.
        part: Part,
    },
    /// Look for tokens of earlier connections in the partition of `topic`, each from its node's watermark up to the high
    /// watermark (Q2), then [`super::Input::LookedUp`]. Every nonce is final or fenced.
    LookUp {
        /// Names the question.
        sequence: u64,
        /// The topic of the PUBLISH that is in doubt.
        topic: Arc<str>,
        /// Whose tokens. Those that [looked](Unresolved::looked) there need not be looked for again.
        unresolved: Vec<Unresolved>,
    },
    /// Append the PUBLISH that is being handled. Its outcome is awaited if it has a `sequence`.
    Append {
        /// Names the append in [`super::Input::Appended`]; none for QoS 0.
        sequence: Option<u64>,
        /// The topic, where a topic alias stands for it.
        alias_topic: Option<Arc<str>>,
        /// For QoS 2.
        token: Option<Token>,
    },
    /// Append a PUBLISH that was held back. Several may come at once: behind one for which there is no room, these and
    /// later [`Effect::Append`]s wait in order.
    AppendKept {
        /// Names the append in [`super::Input::Appended`].
        sequence: u64,
        /// What.
        publish: OwnedPublish,
        /// For QoS 2.
        token: Option<Token>,
    },
    /// A publish with QoS 1 was appended although an earlier connection's appends may still land behind it (F11): to be
    /// counted.
    LateAppendRisk,
    /// Bring subscriptions in force, then [`super::Input::Followed`].
    Follow {
        /// Of the SUBSCRIBE.
        packet_id: PacketId,
        /// At least one.
        filters: Vec<Follow>,
    },
    /// Take subscriptions out of force, then [`super::Input::Unfollowed`].
    Unfollow {
        /// Of the UNSUBSCRIBE.
        packet_id: PacketId,
        /// May be empty.
        filters: Vec<TopicFilter>,
    },
    /// Bring the subscriptions of a resumed session in force and deliver from where it stopped. Comes once, after CONNACK.
    Resume {
        /// All of them.
        filters: Vec<Follow>,
        /// From where on; a partition that is not here did not exist then. Sorted.
        from: Vec<(Place, i64)>,
    },
    /// A message was dropped instead of delivered.
    Dropped(Drop),
    /// Close the connection after what was sent.
    Close(CloseCause),
}

/// Effects in the order in which they must happen.
#[derive(Debug, Default)]
pub struct Effects(VecDeque<Effect>);

impl Effects {
    /// Adds one behind the others.
    pub fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drop {
    /// Its message expiry interval passed.
    Expired,
    /// The topic may not be published to.
    NotWritable,
    /// Larger than the client takes.
    TooLarge,
}

/// Why a connection ends: for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseCause {
    /// The client sent DISCONNECT.
    Disconnected,
    /// The socket ended without DISCONNECT.
    SocketClosed,
    /// The client broke the protocol.
    Protocol(ReasonCode),
    /// CONNECT was refused.
    Refused(ReasonCode),
    /// No CONNECT in time.
    ConnectTimeout,
    /// Nothing was heard for one and a half keep-alive times.
    KeepAlive,
    /// The client id connected again.
    TakenOver,
    /// This node shuts down.
    ShuttingDown,
    /// Limits outside of the protocol, for example no progress of the socket.
    Evicted(ReasonCode),
    /// An append failed in a way that this protocol version cannot tell.
    AppendFailed,
}
