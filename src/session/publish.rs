//! PUBLISH from the client and its acknowledgement (MQTT5 §3.3, §3.4, §4.3).

use std::collections::VecDeque;
use std::sync::Arc;

use super::{CloseCause, Drop, Effect, Effects, Outgoing, Session, Settings};
use crate::mqtt::packet::{Delivery, ProtocolVersion, Publish};
use crate::mqtt::{PacketId, ReasonCode};

/// What became of an append, as far as a client is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Acknowledged by all in-sync replicas: the only proof a PUBACK is built from.
    Written,
    /// Not in the log for a reason that sending again will not mend.
    Refused(ReasonCode),
    /// Perhaps in the log. Never an acknowledgement.
    Unknown,
}

/// The client's publishes that wait for their outcome, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    next_sequence: u64,
    /// `PUBACK`s leave in the order of the `PUBLISH`es [MQTT-4.6.0-2]; partitions finish in any order.
    waiting: VecDeque<Waiting>,
    aliases: Option<Box<Aliases>>,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    packet_id: PacketId,
    outcome: Option<AppendOutcome>,
}

type Aliases = Vec<Option<Arc<str>>>;

impl Inbound {
    /// Whether one more publish would pass the bound. MQTT 5 clients know it and are disconnected instead.
    pub(super) fn is_full(&self, version: ProtocolVersion, settings: &Settings) -> bool {
        match version {
            ProtocolVersion::V31 | ProtocolVersion::V311 => {
                self.waiting.len() >= usize::from(settings.receive_maximum.get())
            }
            ProtocolVersion::V5 => false,
        }
    }

    fn push(&mut self, packet_id: PacketId, outcome: Option<AppendOutcome>) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.waiting.push_back(Waiting { sequence, packet_id, outcome });
        sequence
    }

    fn decide(&mut self, sequence: u64, outcome: AppendOutcome) {
        // Sequences in the queue are ascending and without gaps.
        let Some(front) = self.waiting.front().map(|waiting| waiting.sequence) else { return };
        let index = sequence.checked_sub(front).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            waiting.outcome = Some(outcome);
        }
    }

    fn pop_decided(&mut self) -> Option<(PacketId, AppendOutcome)> {
        let decided = self.waiting.front().and_then(|front| front.outcome.map(|outcome| (front.packet_id, outcome)))?;
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            // An idle connection holds no buffers.
            self.waiting = VecDeque::new();
        }
        Some(decided)
    }

    /// Resolves or learns a topic alias (MQTT5 §3.3.2.3.4). `Ok(None)`: the packet names the topic itself.
    fn resolve_alias(&mut self, publish: &Publish<'_>, maximum: u16) -> Result<Option<Arc<str>>, ReasonCode> {
        let Some(alias) = publish.properties.topic_alias else {
            return if publish.topic.is_empty() { Err(ReasonCode::ProtocolError) } else { Ok(None) };
        };
        // [MQTT-3.3.2-9]
        if alias.get() > maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let aliases = self.aliases.get_or_insert_default();
        let index = usize::from(alias.get() - 1);
        if aliases.len() <= index {
            aliases.resize(index + 1, None);
        }
        let entry = aliases.get_mut(index).ok_or(ReasonCode::TopicAliasInvalid)?;
        if publish.topic.is_empty() {
            return entry.clone().map(Some).ok_or(ReasonCode::ProtocolError);
        }
        *entry = Some(Arc::from(publish.topic));
        Ok(None)
    }
}

impl Session {
    pub(super) fn on_publish(&mut self, publish: &Publish<'_>, effects: &mut Effects) {
        if let Err(reason) = self.check_publish(publish) {
            self.protocol_error(reason, effects);
            return;
        }
        let alias_topic = match self.publishes.resolve_alias(publish, self.settings.topic_alias_maximum) {
            Ok(alias_topic) => alias_topic,
            Err(reason) => {
                self.protocol_error(reason, effects);
                return;
            }
        };
        let topic = alias_topic.as_deref().unwrap_or(publish.topic);
        // MQTT5 §4.7.2: clients do not exchange messages under `$`.
        let writable = self.settings.allows_topic(topic) && !topic.starts_with('$');
        match publish.delivery {
            Delivery::AtMostOnce if writable => {
                effects.push(Effect::Append { sequence: None, alias_topic, token: None })
            }
            Delivery::AtMostOnce => effects.push(Effect::Dropped(Drop::NotWritable)),
            Delivery::AtLeastOnce(packet_id) if writable => {
                let sequence = self.publishes.push(packet_id, None);
                effects.push(Effect::Append { sequence: Some(sequence), alias_topic, token: None });
            }
            Delivery::AtLeastOnce(packet_id) => {
                effects.push(Effect::Dropped(Drop::NotWritable));
                let refused = AppendOutcome::Refused(ReasonCode::TopicNameInvalid);
                self.publishes.push(packet_id, Some(refused));
                self.acknowledge_decided(effects);
            }
            // Refused by check_publish.
            Delivery::ExactlyOnce(_) => {}
        }
    }

    /// What the client was told in CONNACK and must keep to.
    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), ReasonCode> {
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(_) => {
                // [MQTT-3.3.4-9]; 3.x clients are not read any more before it comes to this.
                if self.publishes.waiting.len() >= usize::from(self.settings.receive_maximum.get()) {
                    return Err(ReasonCode::ReceiveMaximumExceeded);
                }
            }
            // [MQTT-3.2.2-11]: CONNACK says Maximum QoS 1.
            Delivery::ExactlyOnce(_) => return Err(ReasonCode::QoSNotSupported),
        }
        // [MQTT-3.2.2-14]: CONNACK says Retain Available 0. MQTT 3.x has no such word: there the flag is kept in the
        // record and retains nothing yet.
        if publish.retain && self.version == ProtocolVersion::V5 {
            return Err(ReasonCode::RetainNotSupported);
        }
        if publish.properties.user_properties.iter().count() > self.settings.user_properties_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    /// The only place from which a PUBACK comes, and it needs the outcome.
    pub(super) fn on_appended(&mut self, sequence: u64, outcome: AppendOutcome, effects: &mut Effects) {
        self.publishes.decide(sequence, outcome);
        self.acknowledge_decided(effects);
    }

    fn acknowledge_decided(&mut self, effects: &mut Effects) {
        if self.phase != super::Phase::Connected {
            return;
        }
        while let Some((packet_id, outcome)) = self.publishes.pop_decided() {
            match (outcome, self.version) {
                (AppendOutcome::Refused(reason), ProtocolVersion::V5) => {
                    effects.push(Effect::Send(Outgoing::PubAck { packet_id, reason }));
                }
                // 3.x has no negative acknowledgement; a topic that may not be written is acknowledged and dropped, as
                // 3.1.1 §3.3.5 allows for publishes that are not authorized.
                (AppendOutcome::Written | AppendOutcome::Refused(ReasonCode::TopicNameInvalid), _) => {
                    effects.push(Effect::Send(Outgoing::PubAck { packet_id, reason: ReasonCode::Success }));
                }
                (AppendOutcome::Refused(_) | AppendOutcome::Unknown, _) => {
                    self.fail(CloseCause::AppendFailed, ReasonCode::ServerBusy, effects);
                    return;
                }
            }
        }
    }
}

/// QoS 2 is not taken, so no PUBREL belongs to anything (MQTT5 §4.3.3).
pub(super) fn on_pubrel(packet_id: PacketId, effects: &mut Effects) {
    effects.push(Effect::Send(Outgoing::PubComp { packet_id, reason: ReasonCode::PacketIdentifierNotFound }));
}
