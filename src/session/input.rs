//! What a session is told.

use super::{AppendOutcome, Delivery, Grant, Starts};
use crate::ledger::ids::{Nonce, Place, Token};
use crate::ledger::state::Inbound;
use crate::mqtt::decode::DecodeError;
use crate::mqtt::packet::Packet;
use crate::mqtt::{PacketId, ReasonCode};

/// What happens outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A whole packet of the client.
    Packet(Packet<'a>),
    /// Bytes of the client that are no packet.
    Malformed(DecodeError),
    /// The session is this connection's ([`super::Effect::Claim`]).
    Granted(Box<Grant>),
    /// The session cannot be this connection's ([`super::Effect::Claim`]).
    Denied(ReasonCode),
    /// A record of the session was read back, and nobody else claimed it before ([`super::Effect::Persist`]).
    Persisted(u64),
    /// Every lower nonce is final or fenced (F11). Those that said which of their tokens are in the log come with it.
    Settled(Vec<(Nonce, Option<Inbound>)>),
    /// A partition was looked through for tokens of earlier connections ([`super::Effect::LookUp`]).
    LookedUp {
        /// Of the question.
        sequence: u64,
        /// Where the topic lives.
        place: Place,
        /// What is there of the nonces that were asked for. Tokens of a nonce that looked there before are not new.
        found: Vec<Token>,
    },
    /// What became of an append ([`super::Effect::Append`], [`super::Effect::AppendKept`]).
    Appended {
        /// Of the append.
        sequence: u64,
        /// Whether it is in the log.
        outcome: AppendOutcome,
    },
    /// The subscriptions of this SUBSCRIBE are in force ([`super::Effect::Follow`]).
    Followed {
        /// Of the SUBSCRIBE.
        packet_id: PacketId,
        /// The session's whole position now: for every partition that its subscriptions touch, the first offset that was
        /// not handed to this session. Sorted. May be empty for a session that is not durable.
        from: Vec<(Place, i64)>,
        /// Where the new ones among the subscriptions start. Empty for a session that is not durable.
        starts: Starts,
    },
    /// The filters of this UNSUBSCRIBE are out of force ([`super::Effect::Unfollow`]).
    Unfollowed {
        /// Of the UNSUBSCRIBE.
        packet_id: PacketId,
        /// As in [`Input::Followed`].
        from: Vec<(Place, i64)>,
    },
    /// The session keeps up with its node's watermarks from now on, or does not any more (W1, W3).
    Positions {
        /// Which of the two.
        following: bool,
        /// As in [`Input::Followed`].
        from: Vec<(Place, i64)>,
    },
    /// A message for this client. Only while [`super::Session::wants_deliveries`].
    Deliver {
        /// The message and how it goes out.
        delivery: Delivery,
        /// Milliseconds since the Unix epoch, for the message expiry.
        wall_ms: i64,
    },
    /// A PUBLISH could not be encoded for this client: too large for it.
    Undeliverable(Option<PacketId>),
    /// The node's watermark is about to go out: what holds it back and is not recorded is to be recorded now.
    Tick,
    /// Another claim of the client won.
    TakenOver,
    /// This node is shutting down.
    ShuttingDown,
    /// An operator or a limit outside of the protocol ends the connection.
    Evicted(ReasonCode),
    /// The socket ended.
    SocketClosed,
}
