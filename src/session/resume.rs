//! A session that goes on after an earlier connection (MQTT5 §4.4).

use std::time::{Duration, Instant};

use super::connect::Claim;
use super::exactly_once::ExactlyOnce;
use super::hold_back::HoldBack;
use super::record::{Durable, lower};
use super::{Effect, Effects, Follow, Grant, Outgoing, Phase, Session, Subscription};
use crate::ledger::ids::{Origin, Place};
use crate::ledger::state::{OpenDelivery, SessionState, SubscriptionState};
use crate::mqtt::packet::QoS;
use crate::mqtt::{PacketId, ReasonCode};

/// What an earlier connection left to be sent again. All of it shrinks to nothing while the session catches up.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// Sent with QoS 2, no PUBREC yet; in the order sent.
    pub(super) open: Vec<OpenDelivery>,
    /// Sent with QoS 1, not acknowledged; in the order sent.
    pub(super) in_flight: Unacked,
    /// Where reading begins before the session's position, because of [`Resumed::open`]: the position.
    skip: Vec<(Place, i64)>,
}

/// Packet ids with their messages.
pub(super) type Unacked = Vec<(PacketId, Origin)>;

/// What a message is to a session that was resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recognised {
    /// It was not sent before.
    New,
    /// The client has it, or it is before the session's position.
    Done,
    /// It was sent under this id.
    Sent(PacketId, QoS),
}

impl Resumed {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.in_flight.is_empty() && self.skip.is_empty()
    }

    /// Whether the id belongs to something that is to be sent again.
    pub(super) fn has(&self, packet_id: PacketId) -> bool {
        self.open.iter().any(|open| open.packet_id == packet_id)
            || self.in_flight.iter().any(|&(id, _)| id == packet_id)
    }

    /// PUBREC came for something that was not sent again yet.
    pub(super) fn take_open(&mut self, packet_id: PacketId) -> Option<OpenDelivery> {
        let index = self.open.iter().position(|open| open.packet_id == packet_id)?;
        Some(self.open.remove(index))
    }

    /// What the message at `origin` is; it is taken out.
    fn take(&mut self, origin: Origin, qos: QoS) -> Recognised {
        if let Some(index) = self.open.iter().position(|open| open.origin == origin) {
            return Recognised::Sent(self.open.remove(index).packet_id, QoS::ExactlyOnce);
        }
        if let Some(index) = self.skip.iter().position(|&(place, _)| place == origin.place) {
            if self.skip.get(index).is_some_and(|&(_, position)| origin.offset < position) {
                return Recognised::Done;
            }
            if qos > QoS::AtMostOnce {
                self.skip.swap_remove(index);
            }
        }
        match self.in_flight.iter().position(|&(_, sent)| sent == origin) {
            Some(index) => {
                let (packet_id, _) = self.in_flight.remove(index);
                if qos == QoS::AtLeastOnce { Recognised::Sent(packet_id, qos) } else { Recognised::New }
            }
            None => Recognised::New,
        }
    }

    /// Takes out what will not come any more. Returns the open deliveries among it.
    fn forget(&mut self, will_not_come: impl Fn(Origin) -> bool) -> Vec<OpenDelivery> {
        self.in_flight.retain(|&(_, sent)| !will_not_come(sent));
        if !self.open.iter().any(|open| will_not_come(open.origin)) {
            return Vec::new();
        }
        let (gone, open) = std::mem::take(&mut self.open).into_iter().partition(|open| will_not_come(open.origin));
        self.open = open;
        gone
    }
}

impl Durable {
    /// What a message is that is about to be delivered.
    pub(super) fn recognise(&mut self, origin: Origin, qos: QoS) -> Recognised {
        if let Some(resumed) = self.resumed.as_deref_mut() {
            let known = resumed.take(origin, qos);
            if resumed.is_empty() {
                self.resumed = None;
            }
            match known {
                Recognised::New => {}
                Recognised::Done | Recognised::Sent(..) => return known,
            }
        }
        let sent_to = self.sent_to.binary_search_by_key(&origin.place, |&(place, _)| place).ok();
        let is_sent = sent_to
            .and_then(|index| self.sent_to.get(index))
            .is_some_and(|&(_, offset)| qos == QoS::ExactlyOnce && origin.offset <= offset);
        if is_sent { Recognised::Done } else { Recognised::New }
    }

    /// A QoS 2 message is in the outbound state from now on.
    pub(super) fn note_sent(&mut self, origin: Origin) {
        match self.sent_to.binary_search_by_key(&origin.place, |&(place, _)| place) {
            Ok(index) => {
                if let Some((_, offset)) = self.sent_to.get_mut(index) {
                    *offset = origin.offset.max(*offset);
                }
            }
            Err(index) => self.sent_to.insert(index, (origin.place, origin.offset)),
        }
    }
}

impl Session {
    /// Messages of QoS 1 and 2 of a partition come in order: what was to come again before `origin` is not in the log any more, or no
    /// subscription wants it.
    pub(super) fn let_go_before(&mut self, origin: Origin, effects: &mut Effects) {
        self.let_go(|other| other.place == origin.place && other.offset < origin.offset, effects);
    }

    /// The session has caught up to `from`, and nothing waits on its way: what was to come again does not.
    pub(super) fn let_go_caught_up(&mut self, from: &[(Place, i64)], effects: &mut Effects) {
        let is_behind = |other: Origin| from.iter().any(|&(place, at)| other.place == place && other.offset < at);
        self.let_go(is_behind, effects);
    }

    /// What was to come again and will not: the client may have it, and waits for its PUBREL.
    fn let_go(&mut self, will_not_come: impl Fn(Origin) -> bool, effects: &mut Effects) {
        let Some(durable) = self.durable.as_deref_mut() else { return };
        let Some(resumed) = durable.resumed.as_deref_mut() else { return };
        let gone = resumed.forget(will_not_come);
        if resumed.is_empty() {
            durable.resumed = None;
        }
        for open in gone {
            self.deliveries.resume_open(open);
            self.release(open.packet_id, effects);
        }
    }

    pub(super) fn on_granted(&mut self, now: Instant, grant: Grant, effects: &mut Effects) {
        if self.phase != Phase::Claiming {
            return;
        }
        let Grant { nonce, session_present, mut state, settled } = grant;
        self.phase = Phase::Connected;
        self.heard_at = now;
        self.nonce = nonce;
        self.claim = self.claim.granted();
        if !settled {
            let wait_ms = self.settings.hold_back_ms;
            let late_at = (wait_ms < u32::MAX).then(|| now.checked_add(Duration::from_millis(u64::from(wait_ms))));
            self.publishes.rare.get_or_insert_default().hold = Some(HoldBack::new(late_at.flatten()));
        }
        let inbound = std::mem::take(&mut state.inbound);
        if !(inbound.held.is_empty() && inbound.unresolved.is_empty()) {
            *self.publishes.exact_or_new() = ExactlyOnce::inherit(inbound);
        }
        self.send_connack(session_present, state.expiry_s, effects);
        if session_present || state.expiry_s > 0 || state.will.is_some() {
            self.go_on(*state, effects);
        }
    }

    /// Takes over what outlived the connection before, and sends what is owed to the client.
    fn go_on(&mut self, mut state: SessionState, effects: &mut Effects) {
        state.subscriptions.iter_mut().for_each(|subscription| subscription.forget_passed(&state.position.from));
        let mut durable = Durable {
            expiry_s: state.expiry_s,
            identity: state.identity,
            will: state.will,
            due: state.due.into_boxed_slice(),
            following: state.subscriptions.is_empty(),
            sent_to: state.outbound.sent_to,
            ..Durable::default()
        };
        let position = state.position;
        self.deliveries.start_after(position.in_flight.iter().map(|&(id, _)| id));
        self.deliveries.start_after(state.outbound.open.iter().map(|open| open.packet_id));
        let mut resumed = Resumed { in_flight: position.in_flight, ..Resumed::default() };
        let mut from = position.from;
        for open in state.outbound.open {
            // A retained message cannot be found again: all that is left is to free its id at the client.
            if open.released || open.origin == super::deliver::NO_ORIGIN {
                self.deliveries.resume_released(open.packet_id, open.origin);
                let reason = ReasonCode::Success;
                effects.push(Effect::Send(Outgoing::PubRel { packet_id: open.packet_id, reason }));
            } else {
                resumed.open.push(open);
                let at = from.iter().find(|&&(place, _)| place == open.origin.place).copied();
                if let Some(position) = at.filter(|&(_, offset)| open.origin.offset < offset) {
                    lower(&mut from, open.origin);
                    // The first one is the session's own.
                    if !resumed.skip.iter().any(|&(place, _)| place == position.0) {
                        resumed.skip.push(position);
                    }
                }
            }
        }
        if !state.subscriptions.is_empty() {
            let filters = state.subscriptions.iter().map(follow).collect();
            effects.push(Effect::Resume { filters, from });
        }
        durable.resumed = (!resumed.is_empty()).then(|| Box::new(resumed));
        self.subscriptions.resume(state.subscriptions);
        self.durable = Some(Box::new(durable));
    }

    /// Whether what is sent to this client outlives the connection.
    pub fn is_durable(&self) -> bool {
        self.durable.as_deref().is_some_and(Durable::is_durable)
    }
}

fn follow(state: &SubscriptionState) -> Follow {
    let SubscriptionState { filter, options, id, starts } = state;
    let subscription = Subscription { options: *options, id: *id };
    Follow { filter: filter.clone(), subscription, is_new: false, starts: starts.clone() }
}

impl Claim {
    /// The claim won, or none was needed.
    fn granted(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Asked | Self::Granted | Self::Left => Self::Granted,
        }
    }
}
