//! SUBSCRIBE and UNSUBSCRIBE (MQTT5 §3.8 to §3.11).

use super::{Effect, Effects, Outgoing, Phase, Session, Settings};
use crate::ledger::ids::Place;
use crate::ledger::state::SubscriptionState;
use crate::mqtt::packet::{QoS, Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe};
use crate::mqtt::{PacketId, ReasonCode, TopicFilter};

/// What a subscription asks for, beside its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Options, with the QoS that was granted.
    pub options: SubscribeOptions,
    /// Subscription identifier.
    pub id: Option<u32>,
}

/// A subscription to bring in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// What it matches.
    pub filter: TopicFilter,
    /// What it asks for.
    pub subscription: Subscription,
    /// The session had no subscription with this filter before (for Retain Handling 1).
    pub is_new: bool,
    /// Of one that is resumed: where it starts, in partitions in which the session's position is before that.
    pub starts: Vec<(Place, i64)>,
}

/// Where new subscriptions start, by filter.
pub type Starts = Vec<(TopicFilter, Vec<(Place, i64)>)>;

/// The session's subscriptions and the answers it owes.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Sorted by filter.
    asked: Vec<SubscriptionState>,
    /// Answers that wait for the node, in order.
    owed: Vec<Owed>,
}

#[derive(Debug)]
struct Owed {
    packet_id: PacketId,
    kind: Kind,
    reasons: Vec<ReasonCode>,
    waits_for: WaitsFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SubAck,
    UnsubAck,
}

#[derive(Debug)]
enum WaitsFor {
    /// The node. These filters are not in force before: a record must not have them without a start.
    Node(Vec<TopicFilter>),
    /// The record of this version (F5).
    Record(u32),
}

impl Subscriptions {
    pub(super) fn may_ask_more(&self, settings: &Settings) -> bool {
        self.owed.len() < settings.subscribe_packets_max
    }

    pub(super) fn resume(&mut self, subscriptions: Vec<SubscriptionState>) {
        self.asked = subscriptions;
    }

    /// Those that have a start, sorted by filter.
    pub(super) fn in_force(&self) -> Vec<SubscriptionState> {
        let starts = |filter: &TopicFilter| {
            self.owed.iter().any(|owed| matches!(&owed.waits_for, WaitsFor::Node(new) if new.contains(filter)))
        };
        self.asked.iter().filter(|asked| !starts(&asked.filter)).cloned().collect()
    }

    /// True if there was none with this filter.
    fn add(&mut self, state: SubscriptionState, settings: &Settings) -> Result<bool, ReasonCode> {
        match self.asked.binary_search_by(|known| known.filter.cmp(&state.filter)) {
            Ok(index) => {
                if let Some(known) = self.asked.get_mut(index) {
                    // It goes on without a gap [MQTT-3.8.4-3].
                    let starts = std::mem::take(&mut known.starts);
                    *known = SubscriptionState { starts, ..state };
                }
                Ok(false)
            }
            Err(_) if self.asked.len() >= settings.subscriptions_max => Err(ReasonCode::QuotaExceeded),
            Err(index) => {
                self.asked.insert(index, state);
                Ok(true)
            }
        }
    }

    fn set_starts(&mut self, starts: Starts) {
        for (filter, starts) in starts {
            let found = self.asked.binary_search_by(|known| known.filter.cmp(&filter));
            if let Some(known) = found.ok().and_then(|index| self.asked.get_mut(index)) {
                known.starts = starts;
            }
        }
    }

    /// Starts are remembered only while the session's position is before them.
    pub(super) fn forget_passed(&mut self, position: &[(Place, i64)]) {
        self.asked.iter_mut().for_each(|asked| asked.forget_passed(position));
    }

    fn remove(&mut self, filter: &TopicFilter) -> bool {
        let found = self.asked.binary_search_by(|known| known.filter.cmp(filter));
        found.map(|index| self.asked.remove(index)).is_ok()
    }

    fn owe(&mut self, packet_id: PacketId, kind: Kind, reasons: Vec<ReasonCode>, new: Vec<TopicFilter>) {
        self.owed.push(Owed { packet_id, kind, reasons, waits_for: WaitsFor::Node(new) });
    }

    /// The answer that waits for the node under this id.
    fn find(&mut self, packet_id: PacketId, kind: Kind) -> Option<(usize, &mut Owed)> {
        let is_it = |owed: &Owed| {
            owed.packet_id == packet_id && owed.kind == kind && matches!(owed.waits_for, WaitsFor::Node(_))
        };
        self.owed.iter_mut().enumerate().find(|(_, owed)| is_it(owed))
    }

    fn take(&mut self, index: usize) -> Owed {
        let owed = self.owed.remove(index);
        if self.owed.is_empty() {
            self.owed = Vec::new();
        }
        owed
    }
}

impl Owed {
    fn into_answer(self) -> Effect {
        let Self { packet_id, reasons, .. } = self;
        Effect::Send(match self.kind {
            Kind::SubAck => Outgoing::SubAck { packet_id, reasons },
            Kind::UnsubAck => Outgoing::UnsubAck { packet_id, reasons },
        })
    }
}

impl Session {
    pub(super) fn on_subscribe(&mut self, subscribe: &Subscribe<'_>, effects: &mut Effects) {
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for asked in &subscribe.filters {
            match self.grant(asked, subscribe.subscription_id) {
                Ok(follow) => {
                    reasons.push(granted(follow.subscription.options.qos));
                    filters.push(follow);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        let packet_id = subscribe.packet_id;
        if filters.is_empty() {
            effects.push(Effect::Send(Outgoing::SubAck { packet_id, reasons }));
            return;
        }
        let new = filters.iter().filter(|follow| follow.is_new).map(|follow| follow.filter.clone()).collect();
        self.subscriptions.owe(packet_id, Kind::SubAck, reasons, new);
        effects.push(Effect::Follow { packet_id, filters });
    }

    fn grant(&mut self, asked: &SubscribeFilter<'_>, id: Option<u32>) -> Result<Follow, ReasonCode> {
        if asked.filter.starts_with("$share/") {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let filter = TopicFilter::parse(asked.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if !self.settings.allows_topic(asked.filter) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let options = asked.options;
        let state = SubscriptionState { filter: filter.clone(), options, id, starts: Vec::new() };
        let is_new = self.subscriptions.add(state, &self.settings)?;
        Ok(Follow { filter, subscription: Subscription { options, id }, is_new, starts: Vec::new() })
    }

    pub(super) fn on_followed(
        &mut self,
        packet_id: PacketId,
        from: Vec<(Place, i64)>,
        starts: Starts,
        effects: &mut Effects,
    ) {
        if self.is_durable() {
            self.subscriptions.set_starts(starts);
        }
        self.on_in_force(packet_id, Kind::SubAck, from, effects);
    }

    pub(super) fn on_unfollowed(&mut self, packet_id: PacketId, from: Vec<(Place, i64)>, effects: &mut Effects) {
        self.on_in_force(packet_id, Kind::UnsubAck, from, effects);
    }

    /// The node has done its part. A durable session records it, then tells (F5).
    fn on_in_force(&mut self, packet_id: PacketId, kind: Kind, from: Vec<(Place, i64)>, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        let Some((index, owed)) = self.subscriptions.find(packet_id, kind) else { return };
        match self.durable.as_deref_mut().filter(|durable| durable.is_durable()) {
            Some(durable) => {
                durable.from = from;
                owed.waits_for = WaitsFor::Record(durable.subscriptions.write());
            }
            None => effects.push(self.subscriptions.take(index).into_answer()),
        }
    }

    /// The subscriptions were read back: what waited for that is told.
    pub(super) fn answer_recorded(&mut self, effects: &mut Effects) {
        let Some(durable) = self.durable.as_deref().filter(|_| self.phase == Phase::Connected) else { return };
        let is_recorded = |owed: &Owed| match owed.waits_for {
            WaitsFor::Record(version) => durable.subscriptions.is_recorded(version),
            WaitsFor::Node(_) => false,
        };
        while let Some(index) = self.subscriptions.owed.iter().position(is_recorded) {
            effects.push(self.subscriptions.take(index).into_answer());
        }
    }

    pub(super) fn on_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, effects: &mut Effects) {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut filters = Vec::new();
        for text in &unsubscribe.filters {
            match TopicFilter::parse(text) {
                Ok(filter) if self.subscriptions.remove(&filter) => {
                    reasons.push(ReasonCode::Success);
                    filters.push(filter);
                }
                Ok(_) => reasons.push(ReasonCode::NoSubscriptionExisted),
                Err(_) => reasons.push(ReasonCode::TopicFilterInvalid),
            }
        }
        let packet_id = unsubscribe.packet_id;
        if filters.is_empty() {
            effects.push(Effect::Send(Outgoing::UnsubAck { packet_id, reasons }));
            return;
        }
        self.subscriptions.owe(packet_id, Kind::UnsubAck, reasons, Vec::new());
        effects.push(Effect::Unfollow { packet_id, filters });
    }
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
