//! What the client publishes while appends of its earlier connections may still land (F11), or while it is not known
//! whether they did (Q2).

use std::collections::VecDeque;
use std::time::Instant;

use super::publish::Rare;
use super::{Effect, Effects, OwnedPublish, Session};
use crate::ledger::ids::{Nonce, Place, Token};
use crate::ledger::state::Inbound as InboundState;
use crate::mqtt::PacketId;
use crate::mqtt::packet::{Publish, PublishProperties};

/// Publishes that are held back. There is none of this once every lower nonce is final or fenced and the queue is empty.
#[derive(Debug)]
pub(super) struct HoldBack {
    state: State,
    queue: VecDeque<HeldBack>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A lower nonce is open; QoS 1 waits until then, or for ever.
    Open(Option<Instant>),
    /// A lower nonce is open, and QoS 1 does not wait any more.
    Late,
    /// All lower nonces are final or fenced. What is in doubt is looked for.
    Settled,
}

/// A publish that is held back.
#[derive(Debug)]
pub(super) struct HeldBack {
    sequence: u64,
    kind: Kind,
    publish: OwnedPublish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AtLeastOnce,
    ExactlyOnce(PacketId, Doubt),
}

/// Whether a publish may be in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// To be looked for.
    Open,
    /// Looked for under this number.
    Asked(u64),
}

impl Kind {
    pub(super) fn exactly_once(packet_id: PacketId, in_doubt: bool) -> Self {
        Self::ExactlyOnce(packet_id, if in_doubt { Doubt::Open } else { Doubt::None })
    }
}

impl HeldBack {
    /// `None` if it is larger than a packet can be.
    pub(super) fn new(sequence: u64, kind: Kind, publish: &Publish<'_>, alias_topic: Option<&str>) -> Option<Self> {
        let properties = PublishProperties { topic_alias: None, ..publish.properties.clone() };
        let topic = alias_topic.unwrap_or(publish.topic);
        let publish = OwnedPublish::new(&Publish { topic, properties, ..publish.clone() })?;
        Some(Self { sequence, kind, publish })
    }

    fn topic(&self) -> &str {
        self.publish.publish().map_or("", |publish| publish.topic)
    }
}

impl Default for HoldBack {
    fn default() -> Self {
        Self { state: State::Settled, queue: VecDeque::new() }
    }
}

impl HoldBack {
    /// Lower nonces are open; QoS 1 waits until then, or for ever.
    pub(super) fn new(late_at: Option<Instant>) -> Self {
        Self { state: State::Open(late_at), queue: VecDeque::new() }
    }

    /// QoS 2 waits until all is known, and behind QoS 2 that waits [MQTT-4.6.0-1].
    pub(super) fn holds_back_qos2(&self) -> bool {
        self.state != State::Settled || self.queue.iter().any(|held| held.kind != Kind::AtLeastOnce)
    }

    pub(super) fn push(&mut self, held: HeldBack) {
        self.queue.push_back(held);
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.queue.iter().any(|held| held.sequence == sequence)
    }

    /// Takes the publish with this id out: it is in the log.
    pub(super) fn take(&mut self, packet_id: PacketId) -> Option<u64> {
        let is_it = |held: &HeldBack| matches!(held.kind, Kind::ExactlyOnce(id, _) if id == packet_id);
        let index = self.queue.iter().position(is_it)?;
        self.queue.remove(index).map(|held| held.sequence)
    }

    /// When QoS 1 waits no longer.
    pub(super) fn late_at(&self) -> Option<Instant> {
        match self.state {
            State::Open(late_at) => late_at,
            State::Late | State::Settled => None,
        }
    }
}

impl Session {
    /// True if the publish was held back.
    pub(super) fn holds_back_qos1(
        &mut self,
        sequence: u64,
        publish: &Publish<'_>,
        alias_topic: Option<&str>,
        effects: &mut Effects,
    ) -> bool {
        let Some(hold) = self.publishes.hold_mut() else { return false };
        match hold.state {
            State::Open(_) => {}
            State::Late => {
                effects.push(Effect::LateAppendRisk);
                return false;
            }
            State::Settled => return false,
        }
        // What cannot be held fits no packet: the append refuses it.
        let kept = HeldBack::new(sequence, Kind::AtLeastOnce, publish, alias_topic);
        let is_kept = kept.is_some();
        hold.queue.extend(kept);
        is_kept
    }

    pub(super) fn on_settled(&mut self, ended: &[(Nonce, Option<InboundState>)], effects: &mut Effects) {
        self.learn_ended(ended);
        if let Some(hold) = self.publishes.hold_mut() {
            hold.state = State::Settled;
        }
        self.tell_found(effects);
        self.ask(effects);
        self.append_held_back(effects);
    }

    pub(super) fn on_looked_up(&mut self, sequence: u64, place: Place, found: &[Token], effects: &mut Effects) {
        self.learn_looked(place, found);
        for held in self.publishes.hold_mut().into_iter().flat_map(|hold| &mut hold.queue) {
            if let Kind::ExactlyOnce(_, doubt) = &mut held.kind
                && *doubt == Doubt::Asked(sequence)
            {
                *doubt = Doubt::None;
            }
        }
        self.tell_found(effects);
        self.append_held_back(effects);
    }

    pub(super) fn on_late(&mut self, effects: &mut Effects) {
        if let Some(hold) = self.publishes.hold_mut() {
            hold.state = State::Late;
        }
        self.append_held_back(effects);
    }

    /// Asks for what is in doubt, once for each topic.
    pub(super) fn ask(&mut self, effects: &mut Effects) {
        let Some(Rare { hold: Some(hold), exact, .. }) = self.publishes.rare.as_deref_mut() else { return };
        if hold.state != State::Settled {
            return;
        }
        let mut asked: Vec<(String, u64)> = Vec::new();
        for held in &mut hold.queue {
            let Kind::ExactlyOnce(packet_id, doubt) = held.kind else { continue };
            let topic = held.topic();
            let doubt = match doubt {
                Doubt::None => Doubt::None,
                Doubt::Open | Doubt::Asked(_) if exact.unresolved().is_empty() => Doubt::None,
                Doubt::Asked(sequence) => {
                    asked.push((topic.to_owned(), sequence));
                    Doubt::Asked(sequence)
                }
                Doubt::Open => {
                    let known = asked.iter().find(|(asked, _)| asked == topic).map(|&(_, sequence)| sequence);
                    Doubt::Asked(known.unwrap_or_else(|| {
                        let sequence = exact.next_look_up();
                        let unresolved = exact.unresolved().to_vec();
                        effects.push(Effect::LookUp { sequence, topic: topic.into(), unresolved });
                        asked.push((topic.to_owned(), sequence));
                        sequence
                    }))
                }
            };
            held.kind = Kind::ExactlyOnce(packet_id, doubt);
        }
    }

    /// Appends, in their order, what need not wait any more.
    fn append_held_back(&mut self, effects: &mut Effects) {
        let Some(mut hold) = self.publishes.rare.as_deref_mut().and_then(|rare| rare.hold.take()) else { return };
        let mut exactly_once_waits = hold.state != State::Settled;
        for held in std::mem::take(&mut hold.queue) {
            let token = match held.kind {
                Kind::AtLeastOnce if matches!(hold.state, State::Open(_)) => {
                    hold.queue.push_back(held);
                    continue;
                }
                Kind::AtLeastOnce => {
                    if hold.state == State::Late {
                        effects.push(Effect::LateAppendRisk);
                    }
                    None
                }
                Kind::ExactlyOnce(packet_id, Doubt::None) if !exactly_once_waits => Some(self.begin_append(packet_id)),
                Kind::ExactlyOnce(..) => {
                    exactly_once_waits = true;
                    hold.queue.push_back(held);
                    continue;
                }
            };
            let HeldBack { sequence, publish, .. } = held;
            effects.push(Effect::AppendKept { sequence, publish, token });
        }
        if hold.state == State::Settled && hold.queue.is_empty() {
            self.publishes.shrink();
        } else {
            self.publishes.rare.get_or_insert_default().hold = Some(hold);
        }
    }
}
