//! Messages to the client and its acknowledgements (MQTT5 §4.3, §4.9).
//!
//! ```text
//! QoS 1   Puback ──PUBACK──▶ done
//! QoS 2   Recording ──recorded──▶ Pubrec ──PUBREC──▶ Releasing ──recorded──▶ Pubcomp ──PUBCOMP──▶ done
//!                                   └──PUBREC that refuses──▶ done
//! ```
//! A session that is not durable records nothing: QoS 2 begins at `Pubrec` and goes from there to `Pubcomp`.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use smallvec::SmallVec;

use super::record::Durable;
use super::resume::Recognised;
use super::{Drop, Effect, Effects, Outgoing, Phase, Session};
use crate::ledger::ids::{Origin, Place};
use crate::ledger::state::{OpenDelivery, Outbound as OutboundState};
use crate::message::Message;
use crate::mqtt::packet::QoS;
use crate::mqtt::{PacketId, ReasonCode};

/// Stands for the origin of a message that has none, in the record of its QoS 2 delivery.
pub(super) const NO_ORIGIN: Origin = Origin { place: Place { topic: 0, partition: 0 }, offset: -1 };

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message, shared by all who get it.
    pub message: Message,
    /// The lower of its own and the highest granted QoS.
    pub qos: QoS,
    /// The retain flag that goes out.
    pub retain: bool,
    /// Of every matching subscription that has one [MQTT-3.3.4-3].
    pub subscription_ids: SmallVec<[u32; 1]>,
    /// Where it is in the log; none for a retained message of a snapshot.
    pub origin: Option<Origin>,
    /// The node's tick at which it was handed over ([`Session::oldest_tick`]).
    pub tick: u32,
}

impl Delivery {
    /// About what it holds in memory, bytes.
    pub fn bytes(&self) -> usize {
        self.message.heap_bytes()
    }
}

/// Where the delivery of one message is; the diagram is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Sent with QoS 1.
    Puback,
    /// To be sent with QoS 2 once its id is recorded.
    Recording,
    /// Sent with QoS 2.
    Pubrec,
    /// PUBREC came; PUBREL is sent once that is recorded.
    Releasing,
    /// PUBREL was sent.
    Pubcomp,
}

impl Stage {
    /// The stage as the record of the outbound state has it: released or not; `None` for QoS 1.
    fn released(self) -> Option<bool> {
        match self {
            Self::Puback => None,
            Self::Recording | Self::Pubrec => Some(false),
            Self::Releasing | Self::Pubcomp => Some(true),
        }
    }

    /// Whether nothing but the session's position keeps the message.
    fn is_unrecorded(self) -> bool {
        match self {
            Self::Puback | Self::Recording => true,
            Self::Pubrec | Self::Releasing | Self::Pubcomp => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    packet_id: PacketId,
    stage: Stage,
    /// Uses one of the client's Receive Maximum: the PUBLISH was sent on this connection (MQTT5 §4.9).
    counts: bool,
    tick: u32,
    origin: Option<Origin>,
}

/// A message with QoS 2 that waits for its record.
#[derive(Debug)]
pub(super) struct Recording {
    version: u32,
    packet_id: PacketId,
    delivery: Delivery,
    wall_ms: i64,
}

/// The window of publishes to the client.
#[derive(Debug)]
pub(super) struct Outbound {
    window: u16,
    used: u16,
    last_id: u16,
    /// In the order sent, which is the order in which they are acknowledged.
    in_flight: VecDeque<InFlight>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { window: 1, used: 0, last_id: 0, in_flight: VecDeque::new() }
    }
}

impl Outbound {
    /// The client's Receive Maximum, capped by ours.
    pub(super) fn open_window(&mut self, receive_maximum: Option<NonZeroU16>, window_max: u16) {
        self.window = receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(window_max).max(1);
    }

    pub(super) fn has_window(&self) -> bool {
        self.used < self.window
    }

    /// Ids of an earlier connection: new ones come behind them.
    pub(super) fn start_after(&mut self, ids: impl Iterator<Item = PacketId>) {
        self.last_id = ids.last().map_or(self.last_id, PacketId::get);
    }

    /// A PUBREL of an earlier connection is sent again.
    pub(super) fn resume_released(&mut self, packet_id: PacketId, origin: Origin) {
        let entry = InFlight { packet_id, stage: Stage::Pubcomp, counts: false, tick: 0, origin: Some(origin) };
        self.in_flight.push_back(entry);
    }

    /// A message that an earlier connection was sent will not come again.
    pub(super) fn resume_open(&mut self, OpenDelivery { packet_id, origin, .. }: OpenDelivery) {
        let entry = InFlight { packet_id, stage: Stage::Pubrec, counts: false, tick: 0, origin: Some(origin) };
        self.in_flight.push_back(entry);
    }

    fn next_id(&mut self, reserved: Option<&Durable>) -> PacketId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let Some(id) = PacketId::new(self.last_id) else { continue };
            // The window is far smaller than the number space, so a free id is near.
            let taken = self.in_flight.iter().any(|entry| entry.packet_id == id)
                || reserved.and_then(|durable| durable.resumed.as_deref()).is_some_and(|resumed| resumed.has(id));
            if !taken {
                return id;
            }
        }
    }

    fn push(&mut self, entry: InFlight) {
        self.used += u16::from(entry.counts);
        self.in_flight.push_back(entry);
    }

    fn find(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        self.in_flight.iter_mut().find(|entry| entry.packet_id == packet_id)
    }

    /// Ends the delivery if it is at one of these stages; true if it was.
    fn end(&mut self, packet_id: PacketId, at: impl Fn(Stage) -> bool) -> bool {
        let Some(index) = self.in_flight.iter().position(|entry| entry.packet_id == packet_id && at(entry.stage))
        else {
            return false;
        };
        let counts = self.in_flight.remove(index).is_some_and(|entry| entry.counts);
        self.used = self.used.saturating_sub(u16::from(counts));
        if self.in_flight.is_empty() {
            // An idle connection holds no buffers.
            self.in_flight = VecDeque::new();
        }
        true
    }

    /// Messages that only the position keeps.
    pub(super) fn unrecorded(&self) -> impl Iterator<Item = Origin> {
        self.in_flight.iter().filter(|entry| entry.stage.is_unrecorded()).filter_map(|entry| entry.origin)
    }

    /// Sent with QoS 1 and not acknowledged, in the order sent; perhaps with what waits for the record of its QoS 2.
    pub(super) fn unacked(&self, with_unrecorded: bool) -> impl Iterator<Item = (PacketId, Origin)> {
        let is_unacked = move |stage: Stage| stage == Stage::Puback || with_unrecorded && stage == Stage::Recording;
        let sent = self.in_flight.iter().filter(move |entry| is_unacked(entry.stage));
        sent.filter_map(|entry| Some((entry.packet_id, entry.origin?)))
    }

    pub(super) fn oldest_tick(&self) -> Option<u32> {
        let held_back = self.in_flight.iter().filter(|entry| entry.stage.is_unrecorded() && entry.origin.is_some());
        held_back.map(|entry| entry.tick).min()
    }

    /// The state as its record has it: what is to be sent again, then what was sent.
    pub(super) fn outbound_state(&self, again: &[OpenDelivery], sent_to: &[(Place, i64)]) -> OutboundState {
        let open = |entry: &InFlight| {
            let origin = entry.origin.unwrap_or(NO_ORIGIN);
            Some(OpenDelivery { packet_id: entry.packet_id, origin, released: entry.stage.released()? })
        };
        let open = again.iter().copied().chain(self.in_flight.iter().filter_map(open)).collect();
        OutboundState { open, sent_to: sent_to.to_vec() }
    }
}

impl Session {
    pub(super) fn on_deliver(&mut self, delivery: Delivery, wall_ms: i64, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        // QoS 0 may come before what the session missed: it says nothing about what comes again.
        if let Some(origin) = delivery.origin.filter(|_| delivery.qos > QoS::AtMostOnce) {
            self.let_go_before(origin, effects);
        }
        let known = match (self.durable.as_deref_mut(), delivery.origin) {
            (Some(durable), Some(origin)) => durable.recognise(origin, delivery.qos),
            (Some(_), None) | (None, _) => Recognised::New,
        };
        match known {
            Recognised::Done => {}
            // Its delivery began before: it does not expire any more [MQTT-3.3.2-5].
            Recognised::Sent(packet_id, qos) => {
                self.send_again(packet_id, Delivery { qos, ..delivery }, wall_ms, effects);
            }
            Recognised::New if delivery.message.is_expired(wall_ms) => effects.push(Effect::Dropped(Drop::Expired)),
            Recognised::New => match delivery.qos {
                QoS::AtMostOnce => {
                    let publish = Outgoing::Publish { delivery, packet_id: None, dup: false, wall_ms };
                    effects.push(Effect::Send(publish));
                }
                QoS::AtLeastOnce => self.send_new(Stage::Puback, delivery, wall_ms, effects),
                QoS::ExactlyOnce if self.is_durable() => self.record_new(delivery, wall_ms),
                QoS::ExactlyOnce => self.send_new(Stage::Pubrec, delivery, wall_ms, effects),
            },
        }
    }

    /// [MQTT-4.4.0-1]: with its old id and DUP.
    fn send_again(&mut self, packet_id: PacketId, delivery: Delivery, wall_ms: i64, effects: &mut Effects) {
        let stage = if delivery.qos == QoS::ExactlyOnce { Stage::Pubrec } else { Stage::Puback };
        self.take_flight(packet_id, stage, &delivery);
        effects.push(Effect::Send(Outgoing::Publish { delivery, packet_id: Some(packet_id), dup: true, wall_ms }));
    }

    fn send_new(&mut self, stage: Stage, delivery: Delivery, wall_ms: i64, effects: &mut Effects) {
        let packet_id = self.deliveries.next_id(self.durable.as_deref());
        self.take_flight(packet_id, stage, &delivery);
        effects.push(Effect::Send(Outgoing::Publish { delivery, packet_id: Some(packet_id), dup: false, wall_ms }));
    }

    /// QoS 2: which id stands for which message is recorded before the client sees it, or the next node would send it
    /// under another id.
    fn record_new(&mut self, delivery: Delivery, wall_ms: i64) {
        let packet_id = self.deliveries.next_id(self.durable.as_deref());
        self.take_flight(packet_id, Stage::Recording, &delivery);
        if let Some(durable) = self.durable_mut() {
            if let Some(origin) = delivery.origin {
                durable.note_sent(origin);
            }
            let version = durable.outbound.write();
            durable.recording.push_back(Recording { version, packet_id, delivery, wall_ms });
        }
    }

    fn take_flight(&mut self, packet_id: PacketId, stage: Stage, delivery: &Delivery) {
        let Delivery { origin, tick, .. } = *delivery;
        self.deliveries.push(InFlight { packet_id, stage, counts: true, tick, origin });
    }

    /// The outbound state was read back: what waited for that goes out.
    pub(super) fn send_recorded(&mut self, effects: &mut Effects) {
        let Some(durable) = self.durable.as_deref_mut().filter(|_| self.phase == Phase::Connected) else { return };
        let recorded = durable.outbound;
        while let Some(waiting) = durable.recording.pop_front_if(|waiting| recorded.is_recorded(waiting.version)) {
            let Recording { packet_id, delivery, wall_ms, .. } = waiting;
            if let Some(entry) = self.deliveries.find(packet_id) {
                entry.stage = Stage::Pubrec;
            }
            effects.push(Effect::Send(Outgoing::Publish { delivery, packet_id: Some(packet_id), dup: false, wall_ms }));
        }
        while let Some((_, packet_id)) = durable.releasing.pop_front_if(|(version, _)| recorded.is_recorded(*version)) {
            if let Some(entry) = self.deliveries.find(packet_id) {
                entry.stage = Stage::Pubcomp;
            }
            effects.push(Effect::Send(Outgoing::PubRel { packet_id, reason: ReasonCode::Success }));
        }
        if durable.recording.is_empty() {
            durable.recording = VecDeque::new();
        }
        if durable.releasing.is_empty() {
            durable.releasing = VecDeque::new();
        }
    }

    /// [MQTT-3.1.2-25]: what is too large for the client is dropped as if it had been delivered.
    pub(super) fn on_undeliverable(&mut self, packet_id: Option<PacketId>, effects: &mut Effects) {
        if let Some(packet_id) = packet_id
            && self.deliveries.end(packet_id, |stage| matches!(stage, Stage::Puback | Stage::Pubrec))
            && let Some(durable) = self.durable_mut()
        {
            durable.outbound.change();
        }
        effects.push(Effect::Dropped(Drop::TooLarge));
    }

    pub(super) fn on_puback(&mut self, packet_id: PacketId) {
        // An unknown id is harmless: nothing waits for it.
        self.deliveries.end(packet_id, |stage| stage == Stage::Puback);
    }

    pub(super) fn on_pubrec(&mut self, packet_id: PacketId, reason: ReasonCode, effects: &mut Effects) {
        if let Some(resumed) = self.durable.as_deref_mut().and_then(|durable| durable.resumed.as_deref_mut())
            && let Some(open) = resumed.take_open(packet_id)
        {
            // It came before the message was sent again, which is not needed any more.
            self.deliveries.resume_open(open);
        }
        let stage = self.deliveries.find(packet_id).map(|entry| entry.stage);
        match stage {
            Some(Stage::Pubrec) if reason.is_error() => {
                // [MQTT-4.3.3-4]: the exchange is over, without PUBREL.
                self.deliveries.end(packet_id, |stage| stage == Stage::Pubrec);
                if let Some(durable) = self.durable_mut() {
                    durable.outbound.change();
                }
            }
            Some(Stage::Pubrec) => self.release(packet_id, effects),
            // PUBREL comes with the record.
            Some(Stage::Releasing) => {}
            Some(Stage::Pubcomp) => effects.push(Effect::Send(pubrel(packet_id, ReasonCode::Success))),
            Some(Stage::Puback | Stage::Recording) | None if reason.is_error() => {}
            Some(Stage::Puback | Stage::Recording) | None => {
                effects.push(Effect::Send(pubrel(packet_id, ReasonCode::PacketIdentifierNotFound)));
            }
        }
    }

    /// The client has the message: it is never sent again.
    pub(super) fn release(&mut self, packet_id: PacketId, effects: &mut Effects) {
        let stage = match self.durable_mut() {
            Some(durable) => {
                let version = durable.outbound.write();
                durable.releasing.push_back((version, packet_id));
                Stage::Releasing
            }
            None => Stage::Pubcomp,
        };
        if let Some(entry) = self.deliveries.find(packet_id) {
            entry.stage = stage;
        }
        if stage == Stage::Pubcomp {
            effects.push(Effect::Send(pubrel(packet_id, ReasonCode::Success)));
        }
    }

    /// The end of a QoS 2 delivery: recorded with whatever is recorded next, because a PUBREL that is sent again does no
    /// harm.
    pub(super) fn on_pubcomp(&mut self, packet_id: PacketId) {
        if self.deliveries.end(packet_id, |stage| stage == Stage::Pubcomp)
            && let Some(durable) = self.durable_mut()
        {
            durable.outbound.change();
        }
    }
}

fn pubrel(packet_id: PacketId, reason: ReasonCode) -> Outgoing {
    Outgoing::PubRel { packet_id, reason }
}
