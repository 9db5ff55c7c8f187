//! Layer 2: one client's protocol machine, sans-I/O.
//!
//! What happens outside comes in as an [`Input`] with the time; what must happen outside goes out as [`Effect`]
//! values; only the shell (`net::connection`) performs them. No packet is acknowledged without proof: the one place
//! that builds a PUBACK is `publish::on_appended`, and it takes the outcome of the append.
//!
//! ```text
//!                 CONNECT fine             Granted
//! AwaitConnect ───────────────▶ Claiming ─────────────▶ Connected
//!      │ refused, timeout          │ denied, timeout,      │ DISCONNECT, error, taken over, closed
//!      │                           │ taken over, closed    │
//!      └───────────────────────────┴───────────────────────┴───────────▶ Closed ──▶ Session::take_parting
//! ```

mod connect;
mod deliver;
mod durable;
mod effect;
mod exactly_once;
mod hold_back;
mod input;
mod look_up;
mod outgoing;
mod parting;
mod publish;
mod record;
mod resume;
mod settings;
mod subscribe;
mod will;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::hold_back::HoldBack;
use crate::ledger::ids::Nonce;
use crate::mqtt::decode::DecodeError;
use crate::mqtt::packet::{Packet, ProtocolVersion};
use crate::mqtt::{ClientId, ReasonCode};

pub use deliver::Delivery;
pub use durable::{Grant, Outstanding, PartCause, Parting, Wish, WishedWill, believe_ended, succeed};
pub use effect::{CloseCause, Drop, Effect, Effects};
pub use input::Input;
pub use outgoing::{ConnAckParts, Outgoing};
pub use publish::AppendOutcome;
pub use settings::Settings;
pub use subscribe::{Follow, Starts, Subscription};
pub use will::OwnedPublish;

/// Where the connection is in its life; the diagram is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but CONNECT is allowed.
    AwaitConnect,
    /// CONNECT was fine; the node is making the session this connection's.
    Claiming,
    /// CONNACK was sent.
    Connected,
    /// Nothing more is sent or taken.
    Closed,
}

/// One connection's session, for as long as it is this connection's.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    phase: Phase,
    version: ProtocolVersion,
    /// Since CONNECT.
    client_id: Option<ClientId>,
    /// One and a half times the keep-alive, [MQTT-3.1.2-22].
    silence_ms_max: Option<NonZeroU32>,
    heard_at: Instant,
    peer: connect::Peer,
    publishes: publish::Inbound,
    deliveries: deliver::Outbound,
    subscriptions: subscribe::Subscriptions,
    durable: Option<Box<record::Durable>>,
    /// Of the claim. Before it, random bytes, of which a client id is made if the client wants one assigned.
    nonce: Nonce,
    claim: connect::Claim,
    /// How the connection ended; before that, how it ends if nobody says otherwise.
    part: PartCause,
    tick: u32,
}

impl Session {
    /// A session for a connection accepted `now`. `nonce` is random: an assigned client id is made of it.
    pub fn new(settings: Arc<Settings>, now: Instant, nonce: u128) -> Self {
        Self {
            settings,
            phase: Phase::AwaitConnect,
            version: ProtocolVersion::V311,
            client_id: None,
            silence_ms_max: None,
            heard_at: now,
            peer: connect::Peer::default(),
            publishes: publish::Inbound::default(),
            deliveries: deliver::Outbound::default(),
            subscriptions: subscribe::Subscriptions::default(),
            durable: None,
            nonce: Nonce(nonce.to_be_bytes()),
            claim: connect::Claim::None,
            part: PartCause::Broken,
            tick: 0,
        }
    }

    /// The client id, once CONNECT was fine.
    pub fn client_id(&self) -> Option<&ClientId> {
        self.client_id.as_ref()
    }

    /// The connection's protocol version; `None` before CONNECT.
    pub fn version(&self) -> Option<ProtocolVersion> {
        match self.phase {
            Phase::AwaitConnect => None,
            Phase::Claiming | Phase::Connected | Phase::Closed => Some(self.version),
        }
    }

    /// The version to encode with: what a refusal before CONNECT is written in, too.
    pub fn wire_version(&self) -> ProtocolVersion {
        self.version
    }

    /// The node's tick: what is appended from now on belongs to it ([`Session::oldest_token_tick`]).
    pub fn set_tick(&mut self, tick: u32) {
        self.tick = tick;
    }

    /// The earliest tick at which a message was handed over that is neither acknowledged nor, with QoS 2, recorded: the
    /// node's watermark of positions must not pass it (W2). `None`: nothing holds it back.
    pub fn oldest_tick(&self) -> Option<u32> {
        self.deliveries.oldest_tick()
    }

    /// Where the connection is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Largest packet to be taken from the client, bytes.
    pub fn frame_bytes_max(&self) -> usize {
        match self.phase {
            Phase::AwaitConnect => self.settings.connect_bytes_max,
            Phase::Claiming | Phase::Connected | Phase::Closed => self.settings.packet_bytes_max,
        }
    }

    /// Largest packet that the client takes, bytes.
    pub fn peer_frame_bytes_max(&self) -> usize {
        // No packet is larger than that anyway.
        usize::try_from(self.peer.packet_bytes_max).unwrap_or(usize::MAX)
    }

    /// Whether the client's next packet may be handled now. While false the socket is not read: a client that may not
    /// be told to slow down (3.x has no receive maximum) is slowed down by TCP.
    pub fn wants_input(&self) -> bool {
        match self.phase {
            Phase::AwaitConnect => true,
            Phase::Claiming | Phase::Closed => false,
            Phase::Connected => {
                !self.publishes.is_full(self.version, &self.settings) && self.subscriptions.may_ask_more(&self.settings)
            }
        }
    }

    /// Whether a message may be handed over now.
    pub fn wants_deliveries(&self) -> bool {
        self.phase == Phase::Connected && self.deliveries.has_window()
    }

    /// Takes one input; effects are added to `effects` in the order in which they must happen.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, effects: &mut Effects) {
        match input {
            Input::Packet(packet) => {
                self.heard_at = now;
                self.handle_packet(packet, effects);
            }
            Input::Malformed(error) => self.on_malformed(&error, effects),
            Input::Granted(grant) => self.on_granted(now, *grant, effects),
            Input::Denied(reason) => self.on_denied(reason, effects),
            Input::Appended { sequence, outcome } => self.on_appended(sequence, outcome, effects),
            Input::Deliver { delivery, wall_ms } => self.on_deliver(delivery, wall_ms, effects),
            Input::Undeliverable(packet_id) => self.on_undeliverable(packet_id, effects),
            Input::TakenOver => self.on_taken_over(effects),
            Input::ShuttingDown => self.on_shutting_down(effects),
            Input::Evicted(reason) => self.fail(CloseCause::Evicted(reason), reason, effects),
            Input::SocketClosed => self.close(CloseCause::SocketClosed, effects),
            told @ (Input::Persisted(_)
            | Input::Settled(_)
            | Input::LookedUp { .. }
            | Input::Followed { .. }
            | Input::Unfollowed { .. }
            | Input::Positions { .. }
            | Input::Tick) => self.handle_told(told, effects),
        }
        self.write_wanted(effects);
    }

    /// What the node says about the session's state; nothing of it matters after the end.
    fn handle_told(&mut self, input: Input<'_>, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        match input {
            Input::Persisted(sequence) => self.on_persisted(sequence, effects),
            Input::Settled(ended) => self.on_settled(&ended, effects),
            Input::LookedUp { sequence, place, found } => self.on_looked_up(sequence, place, &found, effects),
            Input::Followed { packet_id, from, starts } => self.on_followed(packet_id, from, starts, effects),
            Input::Unfollowed { packet_id, from } => self.on_unfollowed(packet_id, from, effects),
            Input::Positions { following, from } => self.on_positions(following, from, effects),
            Input::Tick => self.on_tick(),
            Input::Packet(_)
            | Input::Malformed(_)
            | Input::Granted(_)
            | Input::Denied(_)
            | Input::Appended { .. }
            | Input::Deliver { .. }
            | Input::Undeliverable(_)
            | Input::TakenOver
            | Input::ShuttingDown
            | Input::Evicted(_)
            | Input::SocketClosed => {}
        }
    }

    /// When [`Session::handle_timeout`] is due, whether the socket is read or not.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::AwaitConnect => self.heard_at.checked_add(self.settings.connect_timeout()),
            Phase::Claiming => self.heard_at.checked_add(self.settings.claim_timeout()),
            Phase::Connected => {
                let late_at = self.publishes.hold().and_then(HoldBack::late_at);
                [self.silent_at(), late_at].into_iter().flatten().min()
            }
            Phase::Closed => None,
        }
    }

    fn silent_at(&self) -> Option<Instant> {
        let silence = Duration::from_millis(u64::from(self.silence_ms_max?.get()));
        self.heard_at.checked_add(silence)
    }

    /// The client may have been silent because its packets were not read: it starts afresh. [`Session::handle_timeout`]
    /// is to be called nevertheless.
    pub fn forgive_silence(&mut self, now: Instant) {
        if self.phase == Phase::Connected {
            self.heard_at = now;
        }
    }

    /// Acts on what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Effects) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        match self.phase {
            Phase::AwaitConnect => self.close(CloseCause::ConnectTimeout, effects),
            Phase::Claiming => self.on_denied(ReasonCode::ServerUnavailable, effects),
            Phase::Connected if self.silent_at().is_some_and(|due| due <= now) => {
                self.fail(CloseCause::KeepAlive, ReasonCode::KeepAliveTimeout, effects);
            }
            Phase::Connected => self.on_late(effects),
            Phase::Closed => {}
        }
    }

    fn handle_packet(&mut self, packet: Packet<'_>, effects: &mut Effects) {
        match self.phase {
            Phase::AwaitConnect => {
                if let Packet::Connect(connect) = packet {
                    self.on_connect(&connect, effects);
                } else {
                    // [MQTT-3.1.0-1]; the decoder refuses this already.
                    self.on_unexpected(effects);
                }
            }
            Phase::Connected => self.handle_connected(packet, effects),
            Phase::Claiming | Phase::Closed => {}
        }
    }

    fn handle_connected(&mut self, packet: Packet<'_>, effects: &mut Effects) {
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, effects),
            Packet::PubAck(ack) => self.on_puback(ack.packet_id),
            Packet::PubRec(ack) => self.on_pubrec(ack.packet_id, ack.reason, effects),
            Packet::PubRel(ack) => self.on_pubrel(ack.packet_id, effects),
            Packet::PubComp(ack) => self.on_pubcomp(ack.packet_id),
            Packet::Subscribe(subscribe) => self.on_subscribe(&subscribe, effects),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(&unsubscribe, effects),
            Packet::PingReq => effects.push(Effect::Send(Outgoing::PingResp)),
            Packet::Disconnect(disconnect) => self.on_disconnect(&disconnect, effects),
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => self.on_unexpected(effects),
        }
    }

    /// A packet that is legal bytes at an illegal time: a second CONNECT [MQTT-3.1.0-2], an AUTH without a method.
    fn on_unexpected(&mut self, effects: &mut Effects) {
        self.protocol_error(ReasonCode::ProtocolError, effects);
    }

    fn on_malformed(&mut self, error: &DecodeError, effects: &mut Effects) {
        match self.phase {
            Phase::AwaitConnect => self.refuse_malformed_connect(error, effects),
            Phase::Claiming | Phase::Connected => self.protocol_error(error.reason, effects),
            Phase::Closed => {}
        }
    }

    fn protocol_error(&mut self, reason: ReasonCode, effects: &mut Effects) {
        self.fail(CloseCause::Protocol(reason), reason, effects);
    }

    /// Ends the connection with the server's DISCONNECT, which only MQTT 5 has.
    fn fail(&mut self, cause: CloseCause, reason: ReasonCode, effects: &mut Effects) {
        if self.phase == Phase::Connected && self.version == ProtocolVersion::V5 {
            effects.push(Effect::Send(Outgoing::Disconnect { reason }));
        }
        self.close(cause, effects);
    }

    fn on_taken_over(&mut self, effects: &mut Effects) {
        self.part_as(PartCause::Fenced);
        self.fail(CloseCause::TakenOver, ReasonCode::SessionTakenOver, effects);
    }

    /// Our own shutdown fires no wills: the client goes on at another node.
    fn on_shutting_down(&mut self, effects: &mut Effects) {
        self.part_as(PartCause::Drained);
        self.fail(CloseCause::ShuttingDown, ReasonCode::ServerShuttingDown, effects);
    }

    /// What ends the connection first is its cause.
    fn part_as(&mut self, cause: PartCause) {
        if self.phase != Phase::Closed {
            self.part = cause;
        }
    }

    /// The only way into [`Phase::Closed`].
    fn close(&mut self, cause: CloseCause, effects: &mut Effects) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        effects.push(Effect::Close(cause));
    }
}

#[cfg(test)]
mod tests;
