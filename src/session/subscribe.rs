//! SUBSCRIBE and UNSUBSCRIBE (MQTT5 §3.8 to §3.11).

use super::{Effect, Effects, Outgoing, Phase, Session, Settings};
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
}

/// The session's filters and the answers it owes.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Sorted.
    filters: Vec<TopicFilter>,
    /// Answers that wait for the node, in order.
    owed: Vec<Owed>,
}

#[derive(Debug)]
struct Owed {
    packet_id: PacketId,
    reasons: Vec<ReasonCode>,
}

impl Subscriptions {
    pub(super) fn may_ask_more(&self, settings: &Settings) -> bool {
        self.owed.len() < settings.subscribe_packets_max
    }

    fn add(&mut self, filter: &TopicFilter, settings: &Settings) -> Result<(), ReasonCode> {
        match self.filters.binary_search(filter) {
            Ok(_) => Ok(()),
            Err(_) if self.filters.len() >= settings.subscriptions_max => Err(ReasonCode::QuotaExceeded),
            Err(place) => {
                self.filters.insert(place, filter.clone());
                Ok(())
            }
        }
    }

    fn remove(&mut self, filter: &TopicFilter) -> bool {
        self.filters.binary_search(filter).map(|place| self.filters.remove(place)).is_ok()
    }

    fn settle(&mut self, packet_id: PacketId) -> Option<Vec<ReasonCode>> {
        let index = self.owed.iter().position(|owed| owed.packet_id == packet_id)?;
        let owed = self.owed.remove(index);
        if self.owed.is_empty() {
            self.owed = Vec::new();
        }
        Some(owed.reasons)
    }
}

impl Session {
    pub(super) fn on_subscribe(&mut self, subscribe: &Subscribe<'_>, effects: &mut Effects) {
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for asked in &subscribe.filters {
            match self.grant(asked) {
                Ok((filter, options)) => {
                    reasons.push(granted(options.qos));
                    filters.push(Follow {
                        filter,
                        subscription: Subscription { options, id: subscribe.subscription_id },
                        is_new: true,
                    });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        let packet_id = subscribe.packet_id;
        if filters.is_empty() {
            effects.push(Effect::Send(Outgoing::SubAck { packet_id, reasons }));
            return;
        }
        self.subscriptions.owed.push(Owed { packet_id, reasons });
        effects.push(Effect::Follow { packet_id, filters });
    }

    fn grant(&mut self, asked: &SubscribeFilter<'_>) -> Result<(TopicFilter, SubscribeOptions), ReasonCode> {
        if asked.filter.starts_with("$share/") {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let filter = TopicFilter::parse(asked.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if !self.settings.allows_topic(asked.filter) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        self.subscriptions.add(&filter, &self.settings)?;
        let options = SubscribeOptions { qos: asked.options.qos.min(QoS::AtLeastOnce), ..asked.options };
        Ok((filter, options))
    }

    pub(super) fn on_followed(&mut self, packet_id: PacketId, effects: &mut Effects) {
        if let Some(reasons) = self.subscriptions.settle(packet_id).filter(|_| self.phase == Phase::Connected) {
            effects.push(Effect::Send(Outgoing::SubAck { packet_id, reasons }));
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
        self.subscriptions.owed.push(Owed { packet_id, reasons });
        effects.push(Effect::Unfollow { packet_id, filters });
    }

    pub(super) fn on_unfollowed(&mut self, packet_id: PacketId, effects: &mut Effects) {
        if let Some(reasons) = self.subscriptions.settle(packet_id).filter(|_| self.phase == Phase::Connected) {
            effects.push(Effect::Send(Outgoing::UnsubAck { packet_id, reasons }));
        }
    }
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
