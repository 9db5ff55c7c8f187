//! Messages to the client and its acknowledgements (MQTT5 §4.3, §4.9).

use std::collections::VecDeque;
use std::num::NonZeroU16;

use smallvec::SmallVec;

use super::{Drop, Effect, Effects, Outgoing, Session};
use crate::ledger::ids::Origin;
use crate::message::Message;
use crate::mqtt::packet::QoS;
use crate::mqtt::{PacketId, ReasonCode};

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

/// The window of publishes to the client.
#[derive(Debug)]
pub(super) struct Outbound {
    window: u16,
    last_id: u16,
    /// In the order sent, which is the order in which they are acknowledged.
    in_flight: VecDeque<PacketId>,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { window: 1, last_id: 0, in_flight: VecDeque::new() }
    }
}

impl Outbound {
    /// The client's Receive Maximum, capped by ours.
    pub(super) fn open_window(&mut self, receive_maximum: Option<NonZeroU16>, window_max: u16) {
        self.window = receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(window_max).max(1);
    }

    pub(super) fn has_window(&self) -> bool {
        self.in_flight.len() < usize::from(self.window)
    }

    fn take_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            // The window is far smaller than the number space, so a free id is near.
            if let Some(id) = PacketId::new(self.last_id).filter(|id| !self.in_flight.contains(id)) {
                self.in_flight.push_back(id);
                return id;
            }
        }
    }

    /// Whether the id was in flight.
    fn release(&mut self, packet_id: PacketId) -> bool {
        let Some(index) = self.in_flight.iter().position(|&id| id == packet_id) else { return false };
        self.in_flight.remove(index);
        if self.in_flight.is_empty() {
            // An idle connection holds no buffers.
            self.in_flight = VecDeque::new();
        }
        true
    }
}

impl Session {
    pub(super) fn on_deliver(&mut self, delivery: Delivery, wall_ms: i64, effects: &mut Effects) {
        if self.phase != super::Phase::Connected {
            return;
        }
        // [MQTT-3.3.2-5]
        if delivery.message.is_expired(wall_ms) {
            effects.push(Effect::Dropped(Drop::Expired));
            return;
        }
        let packet_id = match delivery.qos {
            QoS::AtMostOnce => None,
            // Nothing above QoS 1 is granted.
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(self.deliveries.take_id()),
        };
        effects.push(Effect::Send(Outgoing::Publish { delivery, packet_id, dup: false, wall_ms }));
    }

    /// [MQTT-3.1.2-25]: what is too large for the client is dropped as if it had been delivered.
    pub(super) fn on_undeliverable(&mut self, packet_id: Option<PacketId>, effects: &mut Effects) {
        if let Some(packet_id) = packet_id {
            self.deliveries.release(packet_id);
        }
        effects.push(Effect::Dropped(Drop::TooLarge));
    }

    pub(super) fn on_puback(&mut self, packet_id: PacketId) {
        // An unknown id is harmless: nothing waits for it.
        self.deliveries.release(packet_id);
    }
}

/// QoS 2 is never sent, so no PUBREC belongs to anything (MQTT5 §4.3.3).
pub(super) fn on_pubrec(packet_id: PacketId, effects: &mut Effects) {
    effects.push(Effect::Send(Outgoing::PubRel { packet_id, reason: ReasonCode::PacketIdentifierNotFound }));
}
