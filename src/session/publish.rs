//! PUBLISH from the client and its acknowledgement (MQTT5 §3.3, §3.4, §4.3).

use std::collections::VecDeque;
use std::sync::Arc;

use super::exactly_once::{self, ExactlyOnce};
use super::hold_back::HoldBack;
use super::{CloseCause, Drop, Effect, Effects, Outgoing, Outstanding, Phase, Session, Settings};
use crate::ledger::state::Inbound as InboundState;
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

/// Of a publish to a topic that no client may write.
pub(super) const NOT_WRITABLE: AppendOutcome = AppendOutcome::Refused(ReasonCode::TopicNameInvalid);

/// Acknowledgements that are owed, in the order of the publishes [MQTT-4.6.0-2, MQTT-4.6.0-3]: appends are decided in any
/// order.
#[derive(Debug, Default)]
pub(super) struct AckQueue {
    next_sequence: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    packet_id: PacketId,
    outcome: Option<AppendOutcome>,
}

impl AckQueue {
    /// One whose sequences begin here.
    pub(super) fn starting_at(next_sequence: u64) -> Self {
        Self { next_sequence, waiting: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, packet_id: PacketId, outcome: Option<AppendOutcome>) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.waiting.push_back(Waiting { sequence, packet_id, outcome });
        sequence
    }

    /// Notes an outcome; whose it is.
    pub(super) fn decide(&mut self, sequence: u64, outcome: AppendOutcome) -> Option<PacketId> {
        // Sequences in the queue are ascending and without gaps.
        let front = self.waiting.front()?.sequence;
        let index = usize::try_from(sequence.checked_sub(front)?).ok()?;
        let waiting = self.waiting.get_mut(index)?;
        waiting.outcome = Some(outcome);
        Some(waiting.packet_id)
    }

    /// The first one, if it is decided.
    pub(super) fn front_decided(&self) -> Option<(PacketId, AppendOutcome)> {
        self.waiting.front().and_then(|front| front.outcome.map(|outcome| (front.packet_id, outcome)))
    }

    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            // An idle connection holds no buffers.
            self.waiting = VecDeque::new();
        }
    }

    /// Sequences and packet ids without an outcome.
    pub(super) fn undecided(&self) -> impl Iterator<Item = (u64, PacketId)> {
        self.waiting
            .iter()
            .filter(|waiting| waiting.outcome.is_none())
            .map(|waiting| (waiting.sequence, waiting.packet_id))
    }

    /// How many may be in the log or not.
    pub(super) fn unknown(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.outcome == Some(AppendOutcome::Unknown)).count()
    }
}

/// The client's publishes that are not complete.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// `PUBACK`s.
    pub(super) acks: AckQueue,
    pub(super) rare: Option<Box<Rare>>,
}

/// What most sessions never have.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// By number.
    aliases: Vec<Option<Arc<str>>>,
    /// While appends of earlier connections may land, or are looked for.
    pub(super) hold: Option<HoldBack>,
    pub(super) exact: ExactlyOnce,
}

impl Inbound {
    pub(super) fn exact(&self) -> Option<&ExactlyOnce> {
        self.rare.as_deref().map(|rare| &rare.exact)
    }

    pub(super) fn exact_mut(&mut self) -> Option<&mut ExactlyOnce> {
        self.rare.as_deref_mut().map(|rare| &mut rare.exact)
    }

    /// With room for QoS 2, from now on.
    pub(super) fn exact_or_new(&mut self) -> &mut ExactlyOnce {
        &mut self.rare.get_or_insert_default().exact
    }

    pub(super) fn hold(&self) -> Option<&HoldBack> {
        self.rare.as_deref().and_then(|rare| rare.hold.as_ref())
    }

    pub(super) fn hold_mut(&mut self) -> Option<&mut HoldBack> {
        self.rare.as_deref_mut().and_then(|rare| rare.hold.as_mut())
    }

    /// Most sessions have nothing rare again once all is settled.
    pub(super) fn shrink(&mut self) {
        if self
            .rare
            .as_deref()
            .is_some_and(|rare| rare.hold.is_none() && rare.aliases.is_empty() && rare.exact.is_unused())
        {
            self.rare = None;
        }
    }

    /// Whether one more publish would pass the bound. MQTT 5 clients know it and are disconnected instead.
    pub(super) fn is_full(&self, version: ProtocolVersion, settings: &Settings) -> bool {
        match version {
            ProtocolVersion::V31 | ProtocolVersion::V311 => {
                // What waits for the client's PUBREL does not count: it would never be read.
                let owed = self.exact().map_or(0, ExactlyOnce::owed);
                self.acks.len() + owed >= usize::from(settings.receive_maximum.get())
            }
            ProtocolVersion::V5 => false,
        }
    }

    /// The state as its record has it.
    pub(super) fn inbound_state(&self) -> InboundState {
        self.exact().map(ExactlyOnce::state).unwrap_or_default()
    }

    /// Appends that have no outcome; what is held back has not been appended.
    pub(super) fn outstanding(&self) -> Vec<Outstanding> {
        let is_held = |sequence| self.hold().is_some_and(|hold| hold.has(sequence));
        let once = self.acks.undecided().map(|(sequence, _)| Outstanding { sequence, token: None });
        let exactly = self.exact().into_iter().flat_map(ExactlyOnce::outstanding);
        once.filter(|append| !is_held(append.sequence)).chain(exactly).collect()
    }

    pub(super) fn unknown(&self) -> usize {
        self.acks.unknown() + self.exact().map_or(0, ExactlyOnce::unknown)
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
        let aliases = &mut self.rare.get_or_insert_default().aliases;
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
        if !writable {
            effects.push(Effect::Dropped(Drop::NotWritable));
        }
        match publish.delivery {
            Delivery::AtMostOnce if writable => {
                effects.push(Effect::Append { sequence: None, alias_topic, token: None });
            }
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(packet_id) if writable => {
                let sequence = self.publishes.acks.push(packet_id, None);
                if self.holds_back_qos1(sequence, publish, alias_topic.as_deref(), effects) {
                    return;
                }
                effects.push(Effect::Append { sequence: Some(sequence), alias_topic, token: None });
            }
            Delivery::AtLeastOnce(packet_id) => {
                self.publishes.acks.push(packet_id, Some(NOT_WRITABLE));
                self.acknowledge_decided(effects);
            }
            Delivery::ExactlyOnce(packet_id) => {
                self.on_publish_exactly_once(packet_id, publish, alias_topic, writable, effects);
            }
        }
    }

    /// What the client was told in CONNACK and must keep to.
    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), ReasonCode> {
        if let Some(packet_id) = publish.delivery.packet_id() {
            // [MQTT-3.3.4-9]; 3.x clients are not read any more before it comes to this, and bounded elsewhere.
            let exact = self.publishes.exact();
            let open = self.publishes.acks.len() + exact.map_or(0, |exact| exact.counted_besides(packet_id));
            if self.version == ProtocolVersion::V5 && open >= usize::from(self.settings.receive_maximum.get()) {
                return Err(ReasonCode::ReceiveMaximumExceeded);
            }
        }
        if publish.properties.user_properties.iter().count() > self.settings.user_properties_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    /// The only place from which a PUBACK or a PUBREC comes, and it needs the outcome.
    pub(super) fn on_appended(&mut self, sequence: u64, outcome: AppendOutcome, effects: &mut Effects) {
        if exactly_once::is_own(sequence) {
            self.on_appended_exactly_once(sequence, outcome, effects);
        } else {
            self.publishes.acks.decide(sequence, outcome);
            self.acknowledge_decided(effects);
        }
    }

    fn acknowledge_decided(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        while let Some((packet_id, outcome)) = self.publishes.acks.front_decided() {
            let Some(reason) = answer(outcome, self.version) else {
                self.fail(CloseCause::AppendFailed, ReasonCode::ServerBusy, effects);
                return;
            };
            self.publishes.acks.pop();
            effects.push(Effect::Send(Outgoing::PubAck { packet_id, reason }));
        }
    }
}

/// What an outcome is told as; `None`: this protocol version has no word for it.
pub(super) fn answer(outcome: AppendOutcome, version: ProtocolVersion) -> Option<ReasonCode> {
    match (outcome, version) {
        (AppendOutcome::Refused(reason), ProtocolVersion::V5) => Some(reason),
        // 3.x has no negative acknowledgement; a topic that may not be written is acknowledged and dropped, as
        // 3.1.1 §3.3.5 allows for publishes that are not authorized.
        (AppendOutcome::Written | AppendOutcome::Refused(ReasonCode::TopicNameInvalid), _) => Some(ReasonCode::Success),
        (AppendOutcome::Refused(_) | AppendOutcome::Unknown, _) => None,
    }
}
