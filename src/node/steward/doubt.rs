//! Appends of unknown fate. Time settles nothing, but a later append of the same node in the same partition that was
//! written does ([`Outcome::Unknown`]): what is not in the log before it never will be. So a probe is appended: in a
//! partition of `mqtt.sessions` the watermark once more, in one of messages a record that readers drop. Once it is
//! written, and for state once the own tail has passed it, it is known what is missing, and that is appended again.

use std::collections::{BTreeMap, BTreeSet};

use super::core::{Core, Pending, Why};
use super::effect::{Effect, Log};
use super::owned::Publishing;
use crate::journal::{Offset, Outcome, Partition};
use crate::ledger::ids::Token;
use crate::ledger::record::{self, Key, PartKind, Slot};

/// A probe that failed is repeated after so long.
const PROBE_AGAIN_MS: i64 = 1_000;

/// What is in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// By partition of `mqtt.sessions`.
    states: BTreeMap<u32, StateDoubt>,
    /// Partitions of messages in which an append of this node has an unknown fate.
    messages: BTreeMap<Partition, Probe>,
    /// State records that were refused, and when they are tried again.
    refused: Vec<(i64, Pending)>,
    /// Partitions of messages that were ever in doubt: where tokens of unknown fate may be.
    ever: BTreeSet<Partition>,
}

#[derive(Debug, Default)]
struct StateDoubt {
    /// Records of unknown fate that no probe has followed yet.
    open: Vec<Pending>,
    /// Those that the probe under way follows.
    probed: Vec<Pending>,
    probe: Probe,
    /// The probe was written there.
    written: Option<i64>,
}

/// Where a probe is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probe {
    /// To be appended then.
    #[default]
    Due,
    /// Not before.
    Again(i64),
    /// It has no outcome yet; true: something else came into doubt meanwhile.
    UnderWay(bool),
}

impl Doubts {
    /// A record that was refused for good, as far as Kafka says: tried again now and then, while it is still missing.
    pub(super) fn retry(&mut self, now_ms: i64, pending: Pending) {
        self.refused.push((now_ms + PROBE_AGAIN_MS, pending));
    }

    /// `mqtt.sessions` is another one: what was not read of the one before never will be.
    pub(super) fn forget_states(&mut self) {
        self.states.clear();
        self.refused.clear();
    }

    /// Whether some append of messages is in doubt.
    pub(super) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }
}

impl Core {
    /// A state record has an unknown fate.
    pub(super) fn doubt(&mut self, pending: Pending) {
        let partition = pending.partition;
        self.doubts.states.entry(partition).or_default().open.push(pending);
        self.tick_doubts();
    }

    /// Appends of this node in a partition of messages have an unknown fate.
    pub(super) fn on_unknown(&mut self, partition: Partition) {
        tracing::trace!(?partition, "in doubt");
        self.doubts.ever.insert(partition);
        let probe = self.doubts.messages.entry(partition).or_default();
        if let Probe::UnderWay(more) = probe {
            *more = true;
        }
        self.tick_doubts();
    }

    /// Appends the probes that are due.
    pub(super) fn tick_doubts(&mut self) {
        let now_ms = self.now_ms;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.doubts.refused).into_iter().partition(|(at_ms, _)| *at_ms <= now_ms);
        self.doubts.refused = later;
        for (_, pending) in due {
            if self.is_missing(&pending) {
                self.append_missing(pending);
            }
        }
        let is_due = |probe: Probe| match probe {
            Probe::Due => true,
            Probe::Again(at_ms) => at_ms <= now_ms,
            Probe::UnderWay(_) => false,
        };
        let mut due = Vec::new();
        for (partition, doubt) in &mut self.doubts.states {
            if doubt.probed.is_empty() && !doubt.open.is_empty() && is_due(doubt.probe) {
                doubt.probed = std::mem::take(&mut doubt.open);
                doubt.probe = Probe::UnderWay(false);
                due.push(*partition);
            } else if !doubt.probed.is_empty() && is_due(doubt.probe) {
                doubt.probe = Probe::UnderWay(false);
                due.push(*partition);
            }
        }
        for partition in due {
            let (key, value) = self.mark_record();
            self.append(Why::Probe(self.generation()), Log::Sessions, partition, key, Some(value));
        }
        let due = self.doubts.messages.iter_mut().filter(|(_, probe)| is_due(**probe));
        let due: Vec<Partition> = due
            .map(|(partition, probe)| {
                *probe = Probe::UnderWay(false);
                *partition
            })
            .collect();
        for partition in due {
            let sequence = self.next_watched(Why::MessageProbe(partition));
            self.effects.push(Effect::ProbeMessages { sequence, partition });
        }
    }

    pub(super) fn on_probe(&mut self, partition: u32, outcome: Outcome) {
        let again = Probe::Again(self.now_ms + PROBE_AGAIN_MS);
        let Some(doubt) = self.doubts.states.get_mut(&partition) else { return };
        match outcome {
            Outcome::Written(Offset(offset)) => doubt.written = Some(offset),
            Outcome::Refused(_) | Outcome::Unknown => doubt.probe = again,
        }
        self.settle_doubts(partition);
    }

    /// Called when the own tail has moved: what a written probe followed and is not there never will be.
    pub(super) fn settle_doubts(&mut self, partition: u32) {
        let passed = self.read_to.get(&partition).copied().unwrap_or(-1);
        let Some(doubt) = self.doubts.states.get_mut(&partition) else { return };
        if doubt.written.is_none_or(|written| passed < written) {
            return;
        }
        doubt.written = None;
        doubt.probe = Probe::Due;
        let settled = std::mem::take(&mut doubt.probed);
        if doubt.open.is_empty() {
            self.doubts.states.remove(&partition);
        }
        for pending in settled {
            if self.is_missing(&pending) {
                self.append_missing(pending);
            }
        }
        self.tick_doubts();
    }

    /// Appends again what is certainly not in the log, unless that would put an older position in the place of a newer one.
    pub(super) fn append_missing(&mut self, pending: Pending) {
        let Why::Session(key) = pending.why else { return };
        if self.is_moot(key) {
            self.drop_owned(key);
            self.claim_waiting();
            return;
        }
        let is_position =
            matches!(record::parse(&pending.key), Ok(Key::Of { slot: Slot::Part(PartKind::Position), .. }));
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if is_position && pending.version < Some(owned.position_version) {
            owned.awaited.retain(|awaited| Some(awaited.version) != pending.version);
            self.publish_next(key);
            return;
        }
        self.append_again(pending);
    }

    /// Whether a claim that is certainly not in the log is not needed any more: its client was told without it, is gone, and
    /// left nothing. Appended now, it would take the session from the client's next connection.
    fn is_moot(&self, key: u64) -> bool {
        self.owned.get(&key).is_some_and(|owned| {
            let has_left = owned.told && owned.port.is_none() && owned.epoch.is_none();
            has_left && owned.parting.is_none() && !owned.uncertain && owned.publishing.is_none()
        })
    }

    fn is_missing(&self, pending: &Pending) -> bool {
        let Why::Session(key) = pending.why else { return false };
        let Some(owned) = self.owned.get(&key) else { return false };
        match record::parse(&pending.key) {
            // The tombstone of the own claim, or F: dropped once it is read.
            Ok(_) if pending.value.is_none() => owned.said_last,
            Ok(Key::Of { slot: Slot::Claim | Slot::KeeperClaim, .. }) => owned.epoch.is_none(),
            Ok(Key::Of { slot: Slot::Final, .. }) => owned.said_last,
            Ok(Key::Of { slot: Slot::Set | Slot::Part(_), .. }) => {
                (!owned.is_fenced() || owned.given_up)
                    && owned.awaited.iter().any(|awaited| Some(awaited.version) == pending.version)
            }
            Ok(Key::Watermark(_)) | Err(_) => false,
        }
    }

    pub(super) fn on_message_probe(&mut self, partition: Partition, outcome: Outcome) {
        tracing::trace!(?partition, ?outcome, "probed");
        let again = Probe::Again(self.now_ms + PROBE_AGAIN_MS);
        let Some(probe) = self.doubts.messages.get_mut(&partition) else { return };
        match (outcome, *probe) {
            (Outcome::Written(_), Probe::UnderWay(true)) => *probe = Probe::Due,
            (Outcome::Written(_), Probe::Due | Probe::Again(_) | Probe::UnderWay(false)) => {
                self.doubts.messages.remove(&partition);
            }
            (Outcome::Refused(_) | Outcome::Unknown, _) => *probe = again,
        }
        if !self.doubts.has_messages() {
            self.nothing_in_doubt();
        }
    }

    /// No append of messages can land any more without being known: who could not say its last word may say it now.
    fn nothing_in_doubt(&mut self) {
        let uncertain = self.owned.iter().filter(|(_, owned)| owned.uncertain);
        let keys: Vec<u64> = uncertain.map(|(key, _)| *key).collect();
        for key in keys {
            self.resolve(key);
        }
    }

    /// Looks for what an ended connection had appended with an unknown fate, so that its last word says exactly what is in
    /// the log: from then on the watermark passes it.
    pub(super) fn resolve(&mut self, key: u64) {
        if self.doubts.has_messages() {
            return;
        }
        self.look_for_open_will(key);
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if owned.parting.is_some() {
            // Whether its publishes are in doubt is known when all have their outcome.
            owned.uncertain = false;
            return;
        }
        if owned.looks_left > 0 {
            return;
        }
        tracing::trace!(nonce = ?owned.nonce, stage = ?owned.stage, "what it appended is no longer in doubt");
        let has_pending = owned.state.as_ref().is_some_and(|state| !state.inbound.pending.is_empty());
        let partitions: Vec<Partition> = self.doubts.ever.iter().copied().filter(|_| has_pending).collect();
        owned.looks_left = partitions.len();
        if partitions.is_empty() {
            owned.uncertain = false;
            self.finish_if_possible(key);
            return;
        }
        let nonce = owned.nonce;
        for partition in partitions {
            self.scan_for_own(key, partition, nonce);
        }
    }

    /// A will of unknown fate is looked for: it is in the log, or it is appended again.
    fn look_for_open_will(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key).filter(|owned| owned.publishing == Some(Publishing::Open)) else {
            return;
        };
        let due = owned.state.as_ref().and_then(|state| state.due.first());
        let Some((from, nonce)) = due.map(|due| (due.from, due.will.nonce)) else { return };
        let scan = self.scan_for_will(key, from, nonce);
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.publishing = Some(Publishing::LookingUp { scan });
        }
    }

    /// One partition was looked through for tokens of an ended connection.
    pub(super) fn on_own_scanned(&mut self, key: u64, found: &[Token]) {
        let Some(owned) = self.owned.get_mut(&key).filter(|owned| owned.looks_left > 0) else { return };
        let Some(state) = &mut owned.state else { return };
        let inbound = &mut state.inbound;
        for token in found.iter().filter(|token| token.nonce == owned.nonce) {
            let Some(place) = inbound.pending.iter().position(|(number, _)| *number == token.number) else { continue };
            let (_, packet_id) = inbound.pending.remove(place);
            if let Err(place) = inbound.held.binary_search(&packet_id) {
                inbound.held.insert(place, packet_id);
            }
        }
        owned.looks_left -= 1;
        if owned.looks_left == 0 {
            inbound.pending.clear();
            owned.uncertain = false;
            self.finish_if_possible(key);
        }
    }
}
