//! QoS 2 from the client (MQTT5 §4.3.3, DESIGN §5.2): a message is appended once, whichever node the client comes back to.
//!
//! ```text
//!  PUBLISH           in doubt or held back (F11, Q2)
//!     ├──────────────────────────────▶ HeldBack ──found in the log──┐
//!     ▼                                   │ not there               ▼        PUBREL               recorded
//! Appending ◀─────────────────────────────┘                       Held ──────────────▶ Releasing ─────────▶ done
//!     ├──written───────────────────────────────────────────────────▲                     ▲
//!     └──refused──▶ done                                PUBREL of an id in doubt (Q4) ───┘
//! ```
//! PUBREC is sent in `Held`, PUBCOMP at the end. A session that is not durable goes from `Held` to its end at once.

use std::sync::Arc;

use super::hold_back::{HeldBack, HoldBack, Kind};
use super::look_up;
use super::publish::{AckQueue, NOT_WRITABLE, Rare, answer};
use super::{AppendOutcome, CloseCause, Effect, Effects, Outgoing, Outstanding, Phase, Session};
use crate::ledger::ids::{Place, Token};
use crate::ledger::rules::Rule;
use crate::ledger::state::{Inbound as InboundState, Unresolved};
use crate::mqtt::packet::{ProtocolVersion, Publish};
use crate::mqtt::{PacketId, ReasonCode};

/// Sequences of QoS 2 begin here, those of QoS 1 at 0.
const FIRST_SEQUENCE: u64 = 1 << 63;

/// Whether an append with this sequence was QoS 2.
pub(super) fn is_own(sequence: u64) -> bool {
    sequence >= FIRST_SEQUENCE
}

/// Where a publish is; the diagram is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    HeldBack,
    Appending {
        number: u32,
        tick: u32,
    },
    /// In the log. Unless [`Recorded::Inherited`], the node's watermark of tokens waits for its record.
    Held(Recorded),
    /// PUBCOMP waits for the record of this version.
    Releasing {
        version: u32,
    },
}

/// What the record of a held id is to the node's watermark of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// It is no token of this nonce.
    Inherited,
    /// With the record of this version; the token was given at `tick`.
    With { version: u32, tick: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    packet_id: PacketId,
    stage: Stage,
    /// Uses one of our Receive Maximum: its PUBLISH came on this connection (MQTT5 §4.9).
    counts: bool,
}

/// Publishes with QoS 2 that are not complete.
#[derive(Debug)]
pub(super) struct ExactlyOnce {
    /// `PUBREC`s.
    owed: AckQueue,
    /// Tokens of this nonce so far.
    numbers: u32,
    /// Sorted by packet id.
    exchanges: Vec<Exchange>,
    counted: usize,
    /// Lower nonces whose tokens are not all known.
    unresolved: Vec<Unresolved>,
    next_look_up: u64,
}

impl Default for ExactlyOnce {
    fn default() -> Self {
        Self {
            owed: AckQueue::starting_at(FIRST_SEQUENCE),
            numbers: 0,
            exchanges: Vec::new(),
            counted: 0,
            unresolved: Vec::new(),
            next_look_up: 0,
        }
    }
}

impl ExactlyOnce {
    /// What an earlier connection left.
    pub(super) fn inherit(state: InboundState) -> Self {
        let held = |packet_id| Exchange { packet_id, stage: Stage::Held(Recorded::Inherited), counts: false };
        let mut exchanges: Vec<_> = state.held.into_iter().map(held).collect();
        exchanges.sort_unstable_by_key(|exchange| exchange.packet_id);
        Self { exchanges, unresolved: state.unresolved, ..Self::default() }
    }

    pub(super) fn state(&self) -> InboundState {
        let mut state = InboundState { high: self.numbers, unresolved: self.unresolved.clone(), ..Default::default() };
        for exchange in &self.exchanges {
            match exchange.stage {
                Stage::Held(_) => state.held.push(exchange.packet_id),
                Stage::Appending { number, .. } => state.pending.push((number, exchange.packet_id)),
                Stage::HeldBack | Stage::Releasing { .. } => {}
            }
        }
        state
    }

    /// Whether nothing was ever in here that must be remembered.
    pub(super) fn is_unused(&self) -> bool {
        self.numbers == 0 && self.owed.len() == 0 && self.exchanges.is_empty() && self.unresolved.is_empty()
    }

    /// `PUBREC`s that are owed.
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn unknown(&self) -> usize {
        self.owed.unknown()
    }

    pub(super) fn outstanding(&self) -> impl Iterator<Item = Outstanding> {
        self.owed.undecided().filter_map(|(sequence, packet_id)| match self.stage(packet_id)? {
            Stage::Appending { number, .. } => Some(Outstanding { sequence, token: Some((number, packet_id)) }),
            Stage::HeldBack | Stage::Held(_) | Stage::Releasing { .. } => None,
        })
    }

    /// Publishes that use the Receive Maximum, but for the one with this id.
    pub(super) fn counted_besides(&self, packet_id: PacketId) -> usize {
        let own = self.find(packet_id).ok().and_then(|index| self.exchanges.get(index)).is_some_and(|own| own.counts);
        self.counted - usize::from(own)
    }

    pub(super) fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }

    pub(super) fn next_look_up(&mut self) -> u64 {
        self.next_look_up += 1;
        self.next_look_up
    }

    fn find(&self, packet_id: PacketId) -> Result<usize, usize> {
        self.exchanges.binary_search_by_key(&packet_id, |exchange| exchange.packet_id)
    }

    fn stage(&self, packet_id: PacketId) -> Option<Stage> {
        self.find(packet_id).ok().and_then(|index| self.exchanges.get(index)).map(|exchange| exchange.stage)
    }

    /// Begins an exchange, or moves it on; one that counts once goes on counting.
    fn set(&mut self, packet_id: PacketId, stage: Stage, counts: bool) {
        match self.find(packet_id) {
            Ok(index) => {
                if let Some(exchange) = self.exchanges.get_mut(index) {
                    self.counted += usize::from(counts && !exchange.counts);
                    *exchange = Exchange { packet_id, stage, counts: counts || exchange.counts };
                }
            }
            Err(index) => {
                self.counted += usize::from(counts);
                self.exchanges.insert(index, Exchange { packet_id, stage, counts });
            }
        }
    }

    fn end(&mut self, packet_id: PacketId) {
        if let Ok(index) = self.find(packet_id) {
            self.counted -= usize::from(self.exchanges.remove(index).counts);
        }
        if self.exchanges.is_empty() {
            self.exchanges = Vec::new();
        }
    }

    fn oldest_tick(&self, is_recorded: impl Fn(u32) -> bool) -> Option<u32> {
        let waiting = self.exchanges.iter().filter_map(|exchange| match exchange.stage {
            Stage::Appending { tick, .. } => Some(tick),
            Stage::Held(Recorded::With { version, tick }) => (!is_recorded(version)).then_some(tick),
            Stage::Held(Recorded::Inherited) | Stage::HeldBack | Stage::Releasing { .. } => None,
        });
        waiting.min()
    }
}

impl Session {
    pub(super) fn on_publish_exactly_once(
        &mut self,
        packet_id: PacketId,
        publish: &Publish<'_>,
        alias_topic: Option<Arc<str>>,
        writable: bool,
        effects: &mut Effects,
    ) {
        let exact = self.publishes.exact_or_new();
        match exact.stage(packet_id) {
            // Its PUBREC is owed already.
            Some(Stage::HeldBack | Stage::Appending { .. }) => {}
            // [MQTT-4.3.3-10]: it is in the log, and appended never again.
            Some(stage @ (Stage::Held(_) | Stage::Releasing { .. })) => {
                exact.set(packet_id, stage, true);
                exact.owed.push(packet_id, Some(AppendOutcome::Written));
                self.acknowledge_exactly_once(effects);
            }
            None if !writable => {
                if self.version != ProtocolVersion::V5 {
                    exact.set(packet_id, Stage::Held(Recorded::Inherited), true);
                }
                exact.owed.push(packet_id, Some(NOT_WRITABLE));
                self.acknowledge_exactly_once(effects);
            }
            None if self.version != ProtocolVersion::V5 && exact.counted >= self.settings.exactly_once_max => {
                self.protocol_error(ReasonCode::QuotaExceeded, effects);
            }
            None => self.take_new(packet_id, publish, alias_topic, effects),
        }
    }

    fn take_new(
        &mut self,
        packet_id: PacketId,
        publish: &Publish<'_>,
        alias_topic: Option<Arc<str>>,
        effects: &mut Effects,
    ) {
        let rules = self.settings.rules;
        let Rare { hold, exact, .. } = &mut **self.publishes.rare.get_or_insert_default();
        // Q2: DUP proves nothing but that there may have been a first time.
        let in_doubt = publish.dup && !exact.unresolved.is_empty() && rules.holds(Rule::Q2);
        let sequence = exact.owed.push(packet_id, None);
        if in_doubt || hold.as_ref().is_some_and(HoldBack::holds_back_qos2) {
            let Some(held) =
                HeldBack::new(sequence, Kind::exactly_once(packet_id, in_doubt), publish, alias_topic.as_deref())
            else {
                self.on_appended_exactly_once(sequence, AppendOutcome::Refused(ReasonCode::PacketTooLarge), effects);
                return;
            };
            exact.set(packet_id, Stage::HeldBack, true);
            hold.get_or_insert_default().push(held);
            self.ask(effects);
            return;
        }
        let token = Some(self.begin_append(packet_id));
        effects.push(Effect::Append { sequence: Some(sequence), alias_topic, token });
        if !rules.holds(Rule::Q1) {
            self.on_appended_exactly_once(sequence, AppendOutcome::Written, effects);
        }
    }

    /// Q1: every append has its own token.
    pub(super) fn begin_append(&mut self, packet_id: PacketId) -> Token {
        let exact = self.publishes.exact_or_new();
        exact.numbers += 1;
        let number = exact.numbers;
        exact.set(packet_id, Stage::Appending { number, tick: self.tick }, true);
        Token { nonce: self.nonce, number, packet_id: packet_id.get() }
    }

    pub(super) fn on_appended_exactly_once(&mut self, sequence: u64, outcome: AppendOutcome, effects: &mut Effects) {
        let Some(exact) = self.publishes.exact_mut() else { return };
        let Some(packet_id) = exact.owed.decide(sequence, outcome) else { return };
        if let Some(Stage::Appending { tick, .. }) = exact.stage(packet_id) {
            match outcome {
                AppendOutcome::Written => {
                    let version = self.durable.as_deref_mut().map_or(0, |durable| durable.inbound.change());
                    exact.set(packet_id, Stage::Held(Recorded::With { version, tick }), true);
                }
                AppendOutcome::Refused(_) => exact.end(packet_id),
                AppendOutcome::Unknown => {}
            }
        }
        self.acknowledge_exactly_once(effects);
    }

    /// `PUBREC`s leave in the order of the `PUBLISH`es [MQTT-4.6.0-3].
    fn acknowledge_exactly_once(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        let Some(exact) = self.publishes.exact_mut() else { return };
        while let Some((packet_id, outcome)) = exact.owed.front_decided() {
            let Some(reason) = answer(outcome, self.version) else {
                self.fail(CloseCause::AppendFailed, ReasonCode::ServerBusy, effects);
                return;
            };
            exact.owed.pop();
            effects.push(Effect::Send(Outgoing::PubRec { packet_id, reason }));
        }
    }

    pub(super) fn on_pubrel(&mut self, packet_id: PacketId, effects: &mut Effects) {
        let exact = self.publishes.exact_mut();
        match exact.as_ref().and_then(|exact| exact.stage(packet_id)) {
            // PUBREL before PUBREC [MQTT-4.3.3-6].
            Some(Stage::HeldBack | Stage::Appending { .. }) => self.protocol_error(ReasonCode::ProtocolError, effects),
            // PUBCOMP comes with the record.
            Some(Stage::Releasing { .. }) => {}
            Some(Stage::Held(Recorded::With { .. })) => self.release_inbound(packet_id, effects),
            Some(Stage::Held(Recorded::Inherited)) => {
                // A lower nonce that ends later may still call it held.
                if let Some(exact) = exact {
                    look_up::release(&mut exact.unresolved, packet_id);
                }
                self.release_inbound(packet_id, effects);
            }
            None => {
                if let Some(exact) = exact.filter(|exact| !exact.unresolved.is_empty()) {
                    // Q4: an earlier node sent PUBREC for it.
                    if self.settings.rules.holds(Rule::Q4) {
                        look_up::release(&mut exact.unresolved, packet_id);
                    }
                    self.release_inbound(packet_id, effects);
                } else {
                    let reason = ReasonCode::PacketIdentifierNotFound;
                    effects.push(Effect::Send(Outgoing::PubComp { packet_id, reason }));
                }
            }
        }
    }

    /// Q3: the release is recorded, then told.
    fn release_inbound(&mut self, packet_id: PacketId, effects: &mut Effects) {
        let Some(exact) = self.publishes.exact_mut() else { return };
        if let Some(durable) = self.durable.as_deref_mut().filter(|durable| durable.is_durable()) {
            let version = durable.inbound.write();
            if self.settings.rules.holds(Rule::Q3) {
                exact.set(packet_id, Stage::Releasing { version }, false);
                return;
            }
        }
        exact.end(packet_id);
        effects.push(Effect::Send(Outgoing::PubComp { packet_id, reason: ReasonCode::Success }));
    }

    /// The inbound state was read back: what waited for that is complete.
    pub(super) fn complete_recorded(&mut self, effects: &mut Effects) {
        if self.phase != Phase::Connected {
            return;
        }
        let (Some(exact), Some(durable)) = (self.publishes.exact_mut(), self.durable.as_deref()) else {
            return;
        };
        let is_complete = |exchange: &Exchange| match exchange.stage {
            Stage::Releasing { version } => durable.inbound.is_recorded(version),
            Stage::HeldBack | Stage::Appending { .. } | Stage::Held(_) => false,
        };
        let complete: Vec<_> = exact.exchanges.iter().filter(|exchange| is_complete(exchange)).copied().collect();
        for Exchange { packet_id, .. } in complete {
            exact.end(packet_id);
            effects.push(Effect::Send(Outgoing::PubComp { packet_id, reason: ReasonCode::Success }));
        }
    }

    /// What lower nonces said when they ended.
    pub(super) fn learn_ended(&mut self, ended: &[(crate::ledger::ids::Nonce, Option<InboundState>)]) {
        if let Some(exact) = self.publishes.exact_mut() {
            let found = look_up::settle(&mut exact.unresolved, ended);
            self.take_found(found);
        }
    }

    /// What a look-up found.
    pub(super) fn learn_looked(&mut self, place: Place, tokens: &[Token]) {
        if let Some(exact) = self.publishes.exact_mut() {
            let found = look_up::look(&mut exact.unresolved, place, tokens);
            self.take_found(found);
        }
    }

    /// These ids are in the log and not released; what was held back under them is not appended.
    fn take_found(&mut self, found: Vec<PacketId>) {
        let Some(Rare { hold, exact, .. }) = self.publishes.rare.as_deref_mut() else { return };
        for packet_id in found {
            match exact.stage(packet_id) {
                None => exact.set(packet_id, Stage::Held(Recorded::Inherited), false),
                Some(Stage::HeldBack) => {
                    exact.set(packet_id, Stage::Held(Recorded::Inherited), true);
                    if let Some(sequence) = hold.as_mut().and_then(|hold| hold.take(packet_id)) {
                        exact.owed.decide(sequence, AppendOutcome::Written);
                    }
                }
                Some(Stage::Appending { .. } | Stage::Held(_) | Stage::Releasing { .. }) => {}
            }
        }
        if let Some(durable) = self.durable.as_deref_mut() {
            durable.inbound.change();
        }
    }

    /// After [`Session::learn_ended`] and [`Session::learn_looked`].
    pub(super) fn tell_found(&mut self, effects: &mut Effects) {
        self.acknowledge_exactly_once(effects);
    }

    /// What holds the watermark of tokens back is recorded now.
    pub(super) fn on_tick(&mut self) {
        let (Some(exact), Some(durable)) = (self.publishes.exact(), self.durable.as_deref_mut()) else {
            return;
        };
        let recorded = durable.inbound;
        let waits = exact.exchanges.iter().any(|exchange| match exchange.stage {
            Stage::Held(Recorded::With { version, .. }) => !recorded.is_recorded(version),
            Stage::Held(Recorded::Inherited) | Stage::HeldBack | Stage::Appending { .. } | Stage::Releasing { .. } => {
                false
            }
        });
        if waits {
            durable.inbound.want();
        }
    }

    /// The earliest tick at which a token was given to an append that has no outcome yet, or that is in the log and
    /// neither released nor read back as held: the node's watermark of tokens must not pass it (Q5).
    pub fn oldest_token_tick(&self) -> Option<u32> {
        let durable = self.durable.as_deref().filter(|durable| durable.is_durable())?;
        self.publishes.exact()?.oldest_tick(|version| durable.inbound.is_recorded(version))
    }
}
