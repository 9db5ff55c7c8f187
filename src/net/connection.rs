//! The driver of one connection: bytes in, packets to the session, its effects performed, bytes out.
//!
//! One read and one write per wake-up, however many packets they hold. Buffers belong to the thread, not to the
//! connection: an idle connection holds none ([`Scratch`]).

mod appending;
mod counting;
mod lingering;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use self::appending::Parked;
use self::counting::{count_end, drop_reason};
use self::lingering::{linger, must_linger};
use super::stream::Stream;
use crate::clock;
use crate::mqtt::head::{Head, Sender, frame_head};
use crate::mqtt::packet::{Packet, Publish};
use crate::mqtt::{ReasonCode, decode};
use crate::node::Node;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, NO_TICK, Notice};
use crate::ops::metrics::{PacketType, QosLabel, RefuseReason};
use crate::ops::tasks;
use crate::session::{AppendOutcome, CloseCause, Effect, Effects, Input, Outgoing, Session};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Above so many bytes to send, no further message is taken from the mailbox.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Rounds of one wake-up before other connections get their turn.
const ROUNDS_MAX: usize = 4;

/// Buffers that the connections of a thread use in turn, each only within one poll.
struct Scratch {
    read: Vec<u8>,
    out: BytesMut,
    effects: Effects,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ_BYTES],
        out: BytesMut::with_capacity(READ_BYTES),
        effects: Effects::default(),
    });
}

/// Serves a connection until it ends; `None` when the node has no room for one more.
///
/// A future written by hand: one that the compiler makes of an async function keeps room for every stage of its life,
/// and this is what an idle connection costs.
pub fn serve(stream: Stream, node: Arc<Node>, nonce: u128) -> Option<impl Future<Output = ()> + Send> {
    let mailbox = Arc::new(Mailbox::new(node.mailbox_limits));
    let Some(id) = node.connections.add(Arc::clone(&mailbox)) else {
        node.metrics.connections_refused.inc(RefuseReason::TooMany);
        return None;
    };
    node.metrics.connections_open.inc();
    Some(Serving(Some(Connection::new(stream, node, mailbox, id, nonce))))
}

/// The life of a connection.
struct Serving(Option<Connection>);

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.0 else { return Poll::Ready(()) };
        let cause = ready!(connection.poll(cx));
        if let Some(connection) = self.0.take() {
            let stream = connection.end(cause);
            if must_linger(cause) {
                tasks::spawn("linger", linger(stream));
            }
        }
        Poll::Ready(())
    }
}

struct Connection {
    stream: Stream,
    node: Arc<Node>,
    mailbox: Arc<Mailbox>,
    id: ConnectionId,
    session: Session,
    /// Received and not yet handled: part of a packet, or whole ones the session does not want yet.
    unhandled: Vec<u8>,
    /// What the socket did not take.
    unsent: BytesMut,
    /// Since when the socket has taken nothing.
    stalled_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    parked: Option<Box<Parked>>,
    closing: Option<CloseCause>,
}

impl Connection {
    fn new(stream: Stream, node: Arc<Node>, mailbox: Arc<Mailbox>, id: ConnectionId, nonce: u128) -> Self {
        let session = Session::new(Arc::clone(&node.settings), clock::now(), nonce);
        Self {
            stream,
            node,
            mailbox,
            id,
            session,
            unhandled: Vec::new(),
            unsent: BytesMut::new(),
            stalled_since: None,
            timer: None,
            parked: None,
            closing: None,
        }
    }

    /// Ready when the connection is over and what could be sent was sent.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseCause> {
        SCRATCH.with_borrow_mut(|scratch| {
            let now = clock::now();
            self.session.set_tick(self.node.token_tick.load(Ordering::Acquire));
            let turn = self.poll_turn(cx, now, scratch);
            if self.session.is_durable() {
                self.report_progress();
            }
            turn
        })
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, now: Instant, scratch: &mut Scratch) -> Poll<CloseCause> {
        for _ in 0..ROUNDS_MAX {
            self.poll_mailbox(cx, now, scratch);
            self.poll_parked(cx);
            let more_to_read = self.poll_input(cx, now, scratch);
            let more_to_deliver = self.deliver(now, scratch);
            let sent = self.poll_write(cx, now, scratch);
            if let Some(cause) = self.closing.filter(|_| sent || self.is_socket_dead()) {
                return Poll::Ready(cause);
            }
            if self.poll_timer(cx, now, scratch) {
                continue;
            }
            if !(sent && (more_to_read || more_to_deliver)) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_socket_dead(&self) -> bool {
        matches!(self.closing, Some(CloseCause::SocketClosed | CloseCause::Evicted(_)))
    }

    fn poll_mailbox(&mut self, cx: &mut Context<'_>, now: Instant, scratch: &mut Scratch) {
        let taken = self.mailbox.take(cx.waker());
        for (sequence, outcome) in taken.outcomes {
            self.handle(now, Input::Appended { sequence, outcome }, scratch);
        }
        for notice in taken.notices {
            let input = match notice {
                Notice::Followed { packet_id, from, starts } => Input::Followed { packet_id, from, starts },
                Notice::Unfollowed { packet_id, from } => Input::Unfollowed { packet_id, from },
                Notice::Positions { following, from } => Input::Positions { following, from },
                Notice::Granted(grant) => {
                    self.on_granted();
                    Input::Granted(grant)
                }
                Notice::Denied(reason) => Input::Denied(reason),
                Notice::Persisted(sequence) => Input::Persisted(sequence),
                Notice::Settled(finals) => Input::Settled(finals),
                Notice::LookedUp { sequence, place, found } => Input::LookedUp { sequence, place, found },
                Notice::Tick => Input::Tick,
                Notice::TakenOver => Input::TakenOver,
                Notice::ShuttingDown => Input::ShuttingDown,
                Notice::Evicted(reason) => Input::Evicted(reason),
            };
            self.handle(now, input, scratch);
        }
    }

    fn wants_input(&self) -> bool {
        self.closing.is_none()
            && self.parked.is_none()
            && self.session.wants_input()
            && self.unsent.len() < OUT_BYTES_MAX
    }

    /// Reads once and handles what is there. True if there may be more to read at once.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant, scratch: &mut Scratch) -> bool {
        if !self.wants_input() {
            return false;
        }
        let mut read = std::mem::take(&mut scratch.read);
        let kept = self.unhandled.len();
        if read.len() < kept + READ_BYTES / 2 {
            read.resize(kept + READ_BYTES, 0);
        }
        if let Some(room) = read.get_mut(..kept) {
            room.copy_from_slice(&self.unhandled);
        }
        let mut buffer = ReadBuf::new(&mut read);
        buffer.set_filled(kept);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let filled = buffer.filled().len();
        if filled > kept {
            self.node.metrics.bytes_received.inc_by((filled - kept) as u64);
        }
        self.handle_bytes(read.get(..filled).unwrap_or_default(), now, scratch);
        read.truncate(READ_BYTES.max(filled.min(READ_BYTES)));
        scratch.read = read;
        match polled {
            Poll::Pending => false,
            // A short read has cleared the readiness: this registers for the next one, without a system call.
            Poll::Ready(Ok(())) if filled > kept => self.stream.poll_read_ready(cx).is_ready(),
            Poll::Ready(Ok(()) | Err(_)) => {
                self.handle(now, Input::SocketClosed, scratch);
                false
            }
        }
    }

    /// Handles the whole packets in `bytes`, keeps the rest.
    fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant, scratch: &mut Scratch) {
        while self.wants_input() {
            let version = self.session.version();
            let head = match frame_head(bytes, version, Sender::Client, self.session.frame_bytes_max()) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => {
                    self.node.metrics.malformed_packets.inc();
                    self.handle(now, Input::Malformed(error), scratch);
                    break;
                }
            };
            let Some((frame, rest)) = bytes.split_at_checked(head.frame_bytes()) else { break };
            bytes = rest;
            self.handle_frame(head, frame, now, scratch);
        }
        if self.closing.is_some() || bytes.is_empty() {
            // An idle connection holds no buffers.
            self.unhandled = Vec::new();
        } else if bytes != self.unhandled.as_slice() {
            self.unhandled = bytes.to_vec();
        }
    }

    fn handle_frame(&mut self, head: Head, frame: &[u8], now: Instant, scratch: &mut Scratch) {
        self.node.metrics.packets_received.inc(PacketType::of(head.first));
        match decode::packet(frame, self.session.version(), Sender::Client) {
            Ok(Packet::Publish(publish)) => {
                self.node.metrics.publishes_received.inc(QosLabel::of(publish.delivery.qos().as_u8()));
                self.session.handle(now, Input::Packet(Packet::Publish(publish.clone())), &mut scratch.effects);
                self.perform(now, Some(&publish), scratch);
            }
            Ok(packet) => self.handle(now, Input::Packet(packet), scratch),
            Err(error) => {
                self.node.metrics.malformed_packets.inc();
                self.handle(now, Input::Malformed(error), scratch);
            }
        }
    }

    fn handle(&mut self, now: Instant, input: Input<'_>, scratch: &mut Scratch) {
        self.session.handle(now, input, &mut scratch.effects);
        self.perform(now, None, scratch);
    }

    /// Performs the session's effects. `in_hand` is the PUBLISH that is being handled.
    fn perform(&mut self, now: Instant, in_hand: Option<&Publish<'_>>, scratch: &mut Scratch) {
        while let Some(effect) = scratch.effects.pop() {
            match effect {
                Effect::Send(outgoing) => self.send(now, &outgoing, scratch),
                Effect::Append { sequence, alias_topic, token } => {
                    if let Some(publish) = in_hand {
                        self.append(sequence, publish, alias_topic.as_deref().unwrap_or(publish.topic), token);
                    }
                }
                Effect::AppendKept { sequence, publish, token } => self.append_kept(sequence, publish, token),
                Effect::LateAppendRisk => self.node.metrics.late_append_risk.inc(),
                Effect::Claim(wish) => self.node.steward.claim(self.id, Arc::clone(&self.mailbox), wish),
                Effect::Persist { sequence, part } => self.node.steward.persist(self.id, sequence, part),
                Effect::LookUp { sequence, topic, unresolved } => {
                    self.node.steward.look_up(self.id, sequence, topic, unresolved);
                }
                Effect::Follow { packet_id, filters } => {
                    if let Some(client_id) = self.session.client_id().cloned() {
                        let (mailbox, durable) = (Arc::clone(&self.mailbox), self.session.is_durable());
                        self.node.fanout.follow(self.id, client_id, mailbox, packet_id, filters, durable);
                    }
                }
                Effect::Unfollow { packet_id, filters } => self.node.fanout.unfollow(self.id, packet_id, filters),
                Effect::Resume { filters, from } => {
                    if let Some(client_id) = self.session.client_id().cloned() {
                        let (mailbox, durable) = (Arc::clone(&self.mailbox), self.session.is_durable());
                        self.node.fanout.resume(self.id, client_id, mailbox, filters, from, durable);
                    }
                }
                Effect::Dropped(why) => self.node.metrics.publishes_dropped.inc(drop_reason(why)),
                Effect::Close(cause) => self.closing = self.closing.or(Some(cause)),
            }
        }
    }

    /// Claimless sessions take their client id from each other here; all others are told by the log.
    fn on_granted(&self) {
        if let Some(client_id) = self.session.client_id()
            && self.node.registry.register(client_id.clone(), self.id, Arc::clone(&self.mailbox))
        {
            self.node.metrics.takeovers.inc();
        }
    }

    /// What the watermarks must not pass (W2, Q5): known before it is acted on.
    fn report_progress(&self) {
        let unacked = self.session.oldest_tick().unwrap_or(NO_TICK);
        self.mailbox.set_progress(unacked, self.session.oldest_token_tick().unwrap_or(NO_TICK));
    }

    fn send(&mut self, now: Instant, outgoing: &Outgoing, scratch: &mut Scratch) {
        let out = if self.unsent.is_empty() { &mut scratch.out } else { &mut self.unsent };
        let before = out.len();
        let result = outgoing.encode(self.session.wire_version(), self.session.peer_frame_bytes_max(), out);
        match (result, outgoing) {
            (Ok(()), _) => {
                let first = out.get(before).copied().unwrap_or_default();
                self.node.metrics.packets_sent.inc(PacketType::of(first));
                if let Outgoing::Publish { delivery, .. } = outgoing {
                    self.node.metrics.publishes_delivered.inc(QosLabel::of(delivery.qos.as_u8()));
                }
            }
            (Err(_), Outgoing::Publish { packet_id, .. }) => {
                self.session.handle(now, Input::Undeliverable(*packet_id), &mut scratch.effects);
            }
            (Err(error), _) => tracing::debug!(%error, "an answer is too large for the client"),
        }
    }

    /// Hands messages of the mailbox to the session. True if it stopped only because the output is full.
    fn deliver(&mut self, now: Instant, scratch: &mut Scratch) -> bool {
        let mut wall_ms = None;
        while self.closing.is_none() && self.session.wants_deliveries() {
            if self.unsent.len() + scratch.out.len() >= OUT_BYTES_MAX {
                return true;
            }
            let (delivery, room) = self.mailbox.pop_delivery();
            if room {
                self.node.fanout.room(self.id);
            }
            let Some(delivery) = delivery else { return false };
            if delivery.message.expires_at_ms().is_some() {
                // It may be younger than this loop's look at the clock, and would get more time than it had.
                wall_ms = None;
            }
            let wall_ms = *wall_ms.get_or_insert_with(clock::wall_ms);
            self.handle(now, Input::Deliver { delivery, wall_ms }, scratch);
        }
        false
    }

    /// Writes what is to be sent, as far as the socket takes it; true if nothing is left.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant, scratch: &mut Scratch) -> bool {
        let from_scratch = self.unsent.is_empty();
        let mut out = std::mem::take(if from_scratch { &mut scratch.out } else { &mut self.unsent });
        let sent = self.poll_write_all(cx, now, &mut out);
        if from_scratch {
            if !sent {
                self.unsent.extend_from_slice(&out);
            }
            scratch.out = reclaim(out);
        } else if !sent {
            self.unsent = out;
        }
        if self.is_socket_dead() {
            self.unsent = BytesMut::new();
            self.handle(now, Input::SocketClosed, scratch);
            scratch.out.clear();
        }
        sent
    }

    /// True if all of `out` was taken, or nobody will ever take it.
    fn poll_write_all(&mut self, cx: &mut Context<'_>, now: Instant, out: &mut BytesMut) -> bool {
        while !out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, out) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    out.advance(written);
                    self.node.metrics.bytes_sent.inc_by(written as u64);
                    self.stalled_since = None;
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    self.closing = Some(CloseCause::SocketClosed);
                    return true;
                }
                Poll::Pending => {
                    self.stalled_since = self.stalled_since.or(Some(now));
                    return false;
                }
            }
        }
        true
    }

    /// Arms the timer for what is due next, acts on what is due now; true if it acted.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant, scratch: &mut Scratch) -> bool {
        let stall = Duration::from_millis(self.node.write_stall_ms_max);
        let stalled_at = self.stalled_since.and_then(|since| since.checked_add(stall));
        let due = [stalled_at, self.session.poll_timeout()].into_iter().flatten().min();
        if due.is_some_and(|due| due <= now) {
            if stalled_at.is_some_and(|at| at <= now) {
                self.closing = Some(CloseCause::Evicted(ReasonCode::QuotaExceeded));
                self.handle(now, Input::Evicted(ReasonCode::QuotaExceeded), scratch);
                return true;
            }
            if self.parked.is_some() || !self.session.wants_input() {
                // Its packets may be waiting in the socket, unread.
                self.session.forgive_silence(now);
            }
            // A claim or what is held back is due whether the socket is read or not.
            self.session.handle_timeout(now, &mut scratch.effects);
            self.perform(now, None, scratch);
            return true;
        }
        self.arm(cx, due)
    }

    /// True if the timer fired meanwhile.
    fn arm(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> bool {
        let Some(due) = due else {
            self.timer = None;
            return false;
        };
        match &mut self.timer {
            // A timer that fires early is armed again then: cheaper than moving it with every packet.
            Some(sleep) if sleep.deadline().into_std() <= due => {}
            Some(sleep) => sleep.as_mut().reset(due.into()),
            none @ None => *none = Some(Box::pin(tokio::time::sleep_until(due.into()))),
        }
        let fired = self.timer.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if fired {
            self.timer = None;
            cx.waker().wake_by_ref();
        }
        false
    }

    /// Takes the connection out of the node; what is left is its socket.
    fn end(mut self, cause: CloseCause) -> Stream {
        let node = Arc::clone(&self.node);
        self.mailbox.close();
        node.router.begin_draining(self.id);
        node.connections.remove(self.id);
        let mut parting = self.session.take_parting();
        if let Some(parting) = &mut parting {
            for (sequence, outcome) in self.mailbox.take(Waker::noop()).outcomes {
                parting.on_appended(sequence, outcome);
            }
            // F6: what the journal has not taken is never appended, and has no other outcome.
            for sequence in self.parked.iter().flat_map(|parked| parked.sequences()) {
                parting.on_appended(sequence, AppendOutcome::Refused(ReasonCode::ServerUnavailable));
            }
        }
        if parting.as_ref().is_none_or(|parting| parting.outstanding.is_empty()) {
            node.router.end_draining(self.id);
        }
        if parting.is_none() {
            node.steward.parted(self.id, None);
        }
        node.fanout.gone(self.id, parting);
        if let Some(client_id) = self.session.client_id() {
            node.registry.unregister(client_id, self.id);
        }
        node.metrics.connections_open.dec();
        count_end(&node.metrics, cause);
        tracing::debug!(client_id = self.session.client_id().map(tracing::field::display), ?cause, "connection ended");
        self.stream
    }
}

/// A scratch buffer that one large packet made grow goes back to its usual size.
fn reclaim(mut out: BytesMut) -> BytesMut {
    out.clear();
    if out.try_reclaim(READ_BYTES) && out.capacity() <= 4 * READ_BYTES {
        out
    } else {
        BytesMut::with_capacity(READ_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection costs here; the task adds its head, the socket its registration.
    #[test]
    fn a_connection_is_a_small_future() {
        assert!(size_of::<Serving>() <= 384, "{} bytes", size_of::<Serving>());
        assert!(size_of::<Mailbox>() <= 136, "{} bytes", size_of::<Mailbox>());
    }
}
