//! The end of a connection: its last set, the wills that are due (V1 to V5), F.

use super::core::{Core, Pending, Standing, Why};
use super::effect::{Effect, Log};
use super::owned::{Awaited, Owned, Publishing, Stage};
use crate::journal::{Outcome, Refusal};
use crate::ledger::claim::Event;
use crate::ledger::ids::Token;
use crate::ledger::record::{self, LastWord, Slot};
use crate::ledger::rules::Rule;
use crate::ledger::state::{Life, Part, SessionState};
use crate::node::connections::ConnectionId;
use crate::session::{AppendOutcome, OwnedPublish, PartCause, Parting};

/// A connection that is gone and whose appends have no outcome yet.
#[derive(Debug)]
pub(super) enum Draining {
    /// The outcomes came before it was known that it is gone.
    Early(Vec<(u64, AppendOutcome)>),
    /// Of this session.
    Parted(u64),
}

impl Core {
    pub(super) fn on_persist(&mut self, connection: ConnectionId, sequence: u64, part: &Part) {
        tracing::trace!(?connection, sequence, ?part, "a session wants to write");
        let Some(&key) = self.by_connection.get(&connection) else { return };
        if let Part::Position(position) = part
            && !position.following
        {
            self.detached(connection);
        }
        let Some(owned) = self.owned.get(&key).filter(|owned| owned.stage == Stage::Serving) else { return };
        if owned.is_durable() {
            self.write_part(key, Some(sequence), part);
        }
    }

    pub(super) fn write_part(&mut self, key: u64, sequence: Option<u64>, part: &Part) {
        let now_ms = self.now_ms;
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let version = owned.next_version();
        if matches!(part, Part::Position(_)) {
            owned.position_version = version;
        }
        let record_key = record::key(&owned.client, owned.nonce, Slot::Part(part.kind()));
        owned.awaited.push(Awaited { version, sequence, since_ms: now_ms });
        let pending = Pending {
            why: Why::Session(key),
            log: Log::Sessions,
            partition: owned.partition,
            key: record_key,
            value: Some(record::part(version, part)),
            version: Some(version),
        };
        if matches!(part, Part::Position(_)) && !self.rules.holds(Rule::W4) {
            self.stray(pending);
        } else {
            self.append_again(pending);
        }
    }

    pub(super) fn on_parted(&mut self, connection: ConnectionId, parting: Option<Box<Parting>>) {
        tracing::trace!(?connection, ?parting, "parted");
        self.waiting.retain(|waiting| waiting.port.id != connection);
        if let Some(key) = self.by_connection.remove(&connection) {
            if let Some(owned) = self.owned.get_mut(&key) {
                owned.port = None;
                owned.parting = parting.clone().filter(|parting| !parting.is_final());
            }
            self.on_gone(key, parting);
            self.drain(connection, key);
        } else {
            self.effects.push(Effect::Drained(connection));
        }
        self.detached(connection);
        self.claim_waiting();
    }

    /// The connection is gone, appends of it may still have no outcome.
    fn drain(&mut self, connection: ConnectionId, key: u64) {
        let early = match self.draining.insert(connection, Draining::Parted(key)) {
            Some(Draining::Early(early)) => early,
            Some(Draining::Parted(_)) | None => Vec::new(),
        };
        for (sequence, outcome) in early {
            self.on_late(connection, sequence, outcome);
        }
        self.end_draining(connection, key);
    }

    /// An append of a connection that is gone has its outcome.
    pub(super) fn on_late(&mut self, connection: ConnectionId, sequence: u64, outcome: AppendOutcome) {
        match self.draining.entry(connection).or_insert_with(|| Draining::Early(Vec::new())) {
            Draining::Early(early) => early.push((sequence, outcome)),
            Draining::Parted(key) => {
                let key = *key;
                if let Some(parting) = self.owned.get_mut(&key).and_then(|owned| owned.parting.as_mut()) {
                    parting.on_appended(sequence, outcome);
                }
                self.end_draining(connection, key);
            }
        }
    }

    fn end_draining(&mut self, connection: ConnectionId, key: u64) {
        if let Some(owned) = self.owned.get_mut(&key) {
            match &owned.parting {
                Some(parting) if !parting.outstanding.is_empty() => return,
                Some(parting) => {
                    // Exact now, but for what is unknown.
                    let inbound = parting.state.inbound.clone();
                    if let Some(state) = &mut owned.state {
                        state.inbound = inbound;
                    }
                    owned.uncertain |= parting.unknown > 0;
                }
                None => {}
            }
        }
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.parting = None;
        }
        self.draining.remove(&connection);
        self.effects.push(Effect::Drained(connection));
        if self.owned.get(&key).is_some_and(|owned| owned.uncertain) {
            self.resolve(key);
        } else {
            self.finish_if_possible(key);
        }
    }

    /// A session of this node has no connection any more.
    pub(super) fn on_gone(&mut self, key: u64, parting: Option<Box<Parting>>) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        match owned.stage {
            // They end as if the client had been there for a moment.
            Stage::Claiming | Stage::Asking | Stage::Setting | Stage::Publishing => {}
            Stage::Serving => self.part(key, parting),
            Stage::Closing if owned.given_up => {
                if let Some(parting) = parting.filter(|_| owned.has_set) {
                    self.leave_behind(key, parting.state);
                }
                self.finish_if_possible(key);
            }
            Stage::Closing => {
                let goodbye = |parting: &Parting| matches!(parting.cause, PartCause::Normal | PartCause::Drained);
                owned.no_will |= parting.as_deref().is_some_and(goodbye);
                // W3: where a fenced session stands is written before the next watermark.
                if let Some(parting) = parting.filter(|parting| parting.state.expiry_s > 0) {
                    let position = parting.state.position.clone();
                    owned.state = Some(Box::new(parting.state));
                    if owned.has_set && self.rules.holds(Rule::W3) {
                        self.write_part(key, None, &Part::Position(position));
                    }
                }
                self.finish_if_possible(key);
            }
        }
    }

    /// Writes what a session is that this node gave up. Should it be fenced, that is read by nobody (F3).
    fn leave_behind(&mut self, key: u64, mut state: SessionState) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        state.due = owned.state.as_ref().map(|state| state.due.clone()).unwrap_or_default();
        let nothing_to_keep = state.expiry_s == 0 && state.will.is_none() && state.due.is_empty();
        state.life = if nothing_to_keep { Life::Deleted } else { Life::Disconnected { since_ms: 0 } };
        owned.state = Some(Box::new(state));
        self.write_set(key);
    }

    fn part(&mut self, key: u64, parting: Option<Box<Parting>>) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let due = owned.state.as_ref().map(|state| state.due.clone()).unwrap_or_default();
        let (cause, mut state) = match parting {
            Some(parting) => (parting.cause, parting.state),
            None => (PartCause::Normal, owned.state.as_deref().cloned().unwrap_or_default()),
        };
        state.due = due;
        let ends = state.expiry_s == 0;
        let will = match cause {
            PartCause::Normal | PartCause::Drained => {
                owned.no_will = true;
                state.will = None;
                None
            }
            PartCause::Broken => state.will.take_if(|will| will.delay_s == 0 || ends),
            PartCause::Fenced => None,
        };
        let nothing_to_keep = ends && will.is_none() && state.due.is_empty();
        state.life = if nothing_to_keep { Life::Deleted } else { Life::Disconnected { since_ms: 0 } };
        owned.state = Some(Box::new(state));
        if !owned.has_set {
            owned.stage = Stage::Closing;
            self.finish_if_possible(key);
            return;
        }
        if let Some(will) = will {
            self.ask_for_wills(key, &[will]);
        } else {
            owned.stage = Stage::Publishing;
            self.write_set(key);
        }
    }

    // ---- wills that are due

    /// Publishes the first will that is due, or writes what is left when there is none.
    pub(super) fn publish_next(&mut self, key: u64) {
        let settled = self.is_settled(key) || !self.rules.holds(Rule::V4);
        let is_recorded_first = self.rules.holds(Rule::V2);
        let Some(owned) = self.owned.get(&key) else { return };
        let may_publish = match owned.stage {
            Stage::Serving | Stage::Publishing => true,
            Stage::Setting => !is_recorded_first,
            Stage::Claiming | Stage::Asking | Stage::Closing => false,
        };
        if owned.publishing.is_some() || !may_publish {
            return;
        }
        let Some(due) = owned.state.as_ref().and_then(|state| state.due.first()) else {
            self.all_published(key);
            return;
        };
        // V4, and nothing is told before the set that says so was read back (V2).
        let is_unrecorded = owned.awaited.iter().any(|awaited| awaited.sequence.is_none());
        if !settled || is_unrecorded && owned.stage == Stage::Publishing && is_recorded_first {
            return;
        }
        let (will, from) = (due.will.clone(), due.from);
        if self.last_word(key, will.nonce).is_some_and(|word| word.no_will) {
            self.published(key);
            return;
        }
        if will.nonce == owned.nonce || !self.rules.holds(Rule::V3) {
            self.append_will(key);
            return;
        }
        let scan = self.scan_for_will(key, from, will.nonce);
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.publishing = Some(Publishing::LookingUp { scan });
        }
    }

    pub(super) fn on_will_scanned(&mut self, key: u64, found: &[Token]) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        owned.publishing = None;
        if owned.is_fenced() {
            // Whoever fenced it looks, too, and appends what is missing; all that is left here is the last word.
            self.finish_if_possible(key);
            return;
        }
        let Some(will) = owned.state.as_ref().and_then(|state| state.due.first()).map(|due| &due.will) else { return };
        if found.contains(&Token::of_will(will.nonce)) {
            self.published(key);
        } else {
            self.append_will(key);
        }
    }

    fn append_will(&mut self, key: u64) {
        let sequence = self.next_watched(Why::Will(key));
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if owned.is_fenced() {
            return;
        }
        let Some(will) = owned.state.as_ref().and_then(|state| state.due.first()).map(|due| &due.will) else { return };
        let token = Token::of_will(will.nonce);
        let publisher = owned.client.client_id().into();
        let publish = OwnedPublish::from_frame(will.publish.clone());
        owned.publishing = Some(Publishing::Appended { sequence });
        self.effects.push(Effect::AppendWill { sequence, publish, token, publisher });
    }

    pub(super) fn on_will_outcome(&mut self, key: u64, outcome: Outcome) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        match outcome {
            Outcome::Written(_) => self.published(key),
            Outcome::Refused(Refusal::Deadline) => {
                owned.publishing = None;
                if owned.is_fenced() {
                    self.finish_if_possible(key);
                } else {
                    self.append_will(key);
                }
            }
            Outcome::Refused(why) => {
                tracing::warn!(%why, client = owned.client.client_id(), "a will was refused");
                self.published(key);
            }
            Outcome::Unknown => {
                owned.publishing = Some(Publishing::Open);
                owned.uncertain = true;
                self.resolve(key);
            }
        }
    }

    fn published(&mut self, key: u64) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        owned.publishing = None;
        if let Some(state) = owned.state.as_mut().filter(|state| !state.due.is_empty()) {
            state.due.remove(0);
        }
        owned.unrecorded = true;
        match owned.stage {
            Stage::Closing => self.finish_if_possible(key),
            Stage::Serving => {
                owned.unrecorded = false;
                let due = owned.state.as_ref().map(|state| state.due.clone()).unwrap_or_default();
                self.write_part(key, None, &Part::Due(due));
                self.publish_next(key);
            }
            Stage::Claiming | Stage::Asking | Stage::Setting | Stage::Publishing => self.publish_next(key),
        }
    }

    fn all_published(&mut self, key: u64) {
        let log_now_ms = self.log_now_ms();
        let Some(owned) = self.owned.get_mut(&key).filter(|owned| owned.stage == Stage::Publishing) else { return };
        let Some(state) = &mut owned.state else { return };
        let over = match state.life {
            Life::Disconnected { since_ms } => is_over(state, since_ms, log_now_ms),
            Life::Connected | Life::Deleted => false,
        };
        if over {
            state.life = Life::Deleted;
            // Nothing of an ended session is needed again.
            **state = SessionState { life: Life::Deleted, ..SessionState::default() };
        }
        if over {
            owned.claim.handle(Event::End);
        }
        if over || owned.unrecorded {
            owned.unrecorded = false;
            self.write_set(key);
            return;
        }
        if owned.awaited.is_empty() {
            owned.stage = Stage::Closing;
            self.finish_if_possible(key);
        }
    }

    // ---- the last word

    /// V5, F11: F says that this nonce accepts nothing more and that none of its appends is in flight.
    pub(super) fn finish_if_possible(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key) else { return };
        let in_flight = owned.uncertain
            || owned.parting.is_some()
            || matches!(owned.publishing, Some(Publishing::Appended { .. } | Publishing::Open));
        let waits = self.standing == Standing::Replaying
            || owned.stage != Stage::Closing
            || owned.port.is_some()
            || owned.epoch.is_none()
            || owned.given_up && owned.awaited.iter().any(|awaited| awaited.version == owned.version)
            || in_flight && self.rules.holds(Rule::V5);
        if !waits && !owned.said_last {
            self.write_last(key);
        }
    }

    fn write_last(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key) else { return };
        let (partition, client, nonce) = (owned.partition, owned.client.clone(), owned.nonce);
        let ledger = self.ledgers.get(partition as usize);
        let is_alone = ledger.is_some_and(|ledger| {
            ledger.inherited(&client).is_none() && ledger.claims(&client).iter().all(|claim| claim.nonce == nonce)
        });
        if is_alone && !owned.has_set && !owned.is_fenced() {
            // A clean session leaves nothing behind.
            let claim = claim_key_of(owned);
            if let Some(owned) = self.owned.get_mut(&key) {
                owned.said_last = true;
            }
            self.append(Why::Session(key), Log::Sessions, partition, claim, None);
            return;
        }
        let inbound = owned.state.as_ref().map(|state| state.inbound.clone());
        let value = record::last(&LastWord { inbound, no_will: owned.no_will });
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.said_last = true;
        }
        self.append(Why::Session(key), Log::Sessions, partition, record::key(&client, nonce, Slot::Final), Some(value));
    }
}

fn claim_key_of(owned: &Owned) -> Vec<u8> {
    match owned.purpose {
        super::owned::Purpose::Connect(_) => record::key(&owned.client, owned.nonce, Slot::Claim),
        super::owned::Purpose::Keep(_) => record::key(&owned.client, owned.nonce, Slot::KeeperClaim),
    }
}

/// Whether a session that lost its connection at `since_ms` is over; 0: only just.
fn is_over(state: &SessionState, since_ms: i64, log_now_ms: i64) -> bool {
    let expired = super::take_over::expires_at_ms(state, since_ms).is_some_and(|at| at <= log_now_ms);
    state.expiry_s == 0 || since_ms > 0 && expired
}
