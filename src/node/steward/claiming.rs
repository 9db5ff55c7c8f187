//! CONNECT → claim → set → grant (F1 to F5, F8, F10), and what a foreign claim does to a session of this node (F6).

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use super::Asked;
use super::core::{Core, Standing, Why};
use super::effect::{Effect, Log};
use super::owned::{Owned, Port, Purpose, Stage};
use super::take_over::{is_alive, new_state, take_over};
use crate::ledger::claim::{Decision, Event};
use crate::ledger::ids::{Epoch, Nonce, Origin};
use crate::ledger::record::{self, ClientKey, Key, LastWord, Slot};
use crate::ledger::rules::Rule;
use crate::ledger::sessions::Inherited;
use crate::ledger::state::{DueWill, Inbound, Will};
use crate::mqtt::ReasonCode;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, Notice};
use crate::session::{Grant, Wish, believe_ended};

/// A CONNECT that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) port: Port,
    pub(super) wish: Box<Wish>,
    /// Denied when it waited so long.
    pub(super) until_ms: i64,
    /// Not before: its client id is being fought over.
    pub(super) not_before_ms: i64,
}

impl Core {
    pub(super) fn on_claim(&mut self, connection: ConnectionId, mailbox: Arc<Mailbox>, wish: Box<Wish>) {
        let port = Port { id: connection, mailbox };
        if !wish.needs_claim() {
            let grant = self.grant_without_claim(&wish);
            self.effects.push(port.tell(Notice::Granted(Box::new(grant))));
            return;
        }
        let client = ClientKey::new("", wish.client_id.as_str());
        let pause_ms = self.fights.pause_ms(&client, self.now_ms, self.limits.take_overs_max);
        let until_ms = self.now_ms + self.limits.claim_ms_max;
        if self.standing != Standing::Acting || pause_ms > 0 || self.is_leaving(&client) {
            let not_before_ms = self.now_ms + pause_ms;
            self.waiting.push_back(Waiting { port, wish, until_ms, not_before_ms });
            return;
        }
        self.claim(port, wish);
    }

    fn grant_without_claim(&mut self, wish: &Wish) -> Grant {
        let state = Box::new(new_state(wish, None));
        Grant { nonce: self.random_nonce(), session_present: false, state, settled: true }
    }

    /// Whether a connection of this client has ended and what it leaves behind is on its way here. What its DISCONNECT
    /// said comes before the next CONNECT: whether there is a will, and whether the session goes on.
    fn is_leaving(&self, client: &ClientKey) -> bool {
        self.ports_of(client).any(|port| port.mailbox.is_closed())
    }

    /// The connections of a client on this node.
    fn ports_of(&self, client: &ClientKey) -> impl Iterator<Item = &Port> {
        let port = |key| self.owned.get(key).and_then(|owned| owned.port.as_ref());
        self.by_client.get(client).into_iter().flatten().filter_map(port)
    }

    /// CONNECTs that waited: now, or never.
    pub(super) fn claim_waiting(&mut self) {
        let now_ms = self.now_ms;
        for waiting in mem::take(&mut self.waiting) {
            let client = ClientKey::new("", waiting.wish.client_id.as_str());
            if waiting.until_ms <= now_ms {
                self.effects.push(waiting.port.tell(Notice::Denied(ReasonCode::ServerUnavailable)));
            } else if self.standing == Standing::Acting && waiting.not_before_ms <= now_ms && !self.is_leaving(&client)
            {
                self.claim(waiting.port, waiting.wish);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    pub(super) fn tick_claims(&mut self) {
        self.claim_waiting();
        let now_ms = self.now_ms;
        let late = now_ms - self.limits.claim_ms_max;
        let is_late = |owned: &Owned| {
            matches!(owned.stage, Stage::Claiming | Stage::Asking | Stage::Setting)
                && owned.claimed_at_ms < late
                && !owned.told
        };
        for owned in self.owned.values_mut().filter(|owned| is_late(owned)) {
            // The claim may still land: it is finished without the client, as if it had left.
            if let Some(port) = owned.port.take() {
                self.by_connection.remove(&port.id);
                self.effects.push(port.tell(Notice::Denied(ReasonCode::ServerUnavailable)));
            }
        }
    }

    fn claim(&mut self, port: Port, wish: Box<Wish>) {
        let client = ClientKey::new("", wish.client_id.as_str());
        if self.ports_of(&client).any(|port| !port.mailbox.is_closed()) {
            self.fights.count(&client, self.now_ms);
        }
        let partition = client.partition(self.partition_count());
        let found = self.inherited(partition, &client);
        if found.as_ref().is_some_and(|found| found.state.identity != wish.identity && is_alive(&found.state)) {
            self.effects.push(port.tell(Notice::Denied(ReasonCode::NotAuthorized)));
            return;
        }
        let nonce = self.random_nonce();
        // DESIGN "Cheap clean sessions": nothing to end, nothing to keep, so nobody waits for the claim.
        let told = wish.clean_start && wish.expiry_s == 0 && wish.will.is_none() && found.is_none();
        let mut owned = Owned::new(client, partition, nonce, Purpose::Connect(wish), self.rules, self.now_ms);
        owned.port = Some(port);
        owned.told = told;
        let key = self.append_claim(owned);
        if told {
            self.grant(key);
        }
    }

    /// Appends the claim of `owned`, after the watermark that its look-ups will need.
    pub(super) fn append_claim(&mut self, owned: Owned) -> u64 {
        let (partition, nonce) = (owned.partition, owned.nonce);
        self.need_mark(partition);
        let (record_key, value) = match &owned.purpose {
            Purpose::Connect(_) => {
                (record::key(&owned.client, nonce, Slot::Claim), record::claim(self.identity.incarnation))
            }
            Purpose::Keep(expected) => (
                record::key(&owned.client, nonce, Slot::KeeperClaim),
                record::keeper_claim(self.identity.incarnation, *expected),
            ),
        };
        let key = self.add_owned(owned);
        self.append(Why::Session(key), Log::Sessions, partition, record_key, Some(value));
        key
    }

    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.ledgers.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn inherited(&self, partition: u32, client: &ClientKey) -> Option<Inherited> {
        self.ledgers.get(partition as usize)?.inherited(client)
    }

    /// A claim was read: perhaps ours, perhaps one that ends ours.
    pub(super) fn on_claimed(&mut self, partition: u32, client: &ClientKey, nonce: Nonce, counted: bool) {
        if counted {
            self.fence_others(client, nonce);
        }
        let Some(&key) = self.by_nonce.get(&nonce) else {
            self.disown(partition, client, nonce);
            return;
        };
        let Some(epoch) = self.ledgers.get(partition as usize).and_then(|ledger| ledger.epoch_of(client, nonce)) else {
            return;
        };
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if owned.epoch.is_some() {
            // The same record once more: the machine knows what that means (F6).
            owned.claim.handle(Event::OwnClaim { epoch, counted, needs_set: false });
            return;
        }
        owned.epoch = Some(epoch);
        if owned.stage == Stage::Closing {
            // It was given up before it was read.
            self.finish_if_possible(key);
            return;
        }
        if !counted && owned.claim.handle(Event::OwnClaim { epoch, counted, needs_set: true }) == Decision::Void {
            owned.stage = Stage::Closing;
            self.finish_if_possible(key);
            return;
        }
        self.take_over(key);
    }

    /// F6: once fenced, a nonce is fenced for ever.
    fn fence_others(&mut self, client: &ClientKey, winner: Nonce) {
        let is_own = self.by_nonce.contains_key(&winner);
        let others: Vec<u64> = self.by_client.get(client).into_iter().flatten().copied().collect();
        for key in others {
            let Some(owned) = self.owned.get_mut(&key).filter(|owned| owned.nonce != winner) else { continue };
            if owned.claim.handle(Event::ForeignClaim { counted: true }) != Decision::Fenced {
                continue;
            }
            if !self.rules.holds(Rule::F6) && owned.stage == Stage::Serving {
                continue;
            }
            let was = mem::replace(&mut owned.stage, Stage::Closing);
            if let Some(port) = &owned.port {
                if !is_own && !port.mailbox.is_closed() {
                    self.fights.count(client, self.now_ms);
                }
                let effect = port.tell(Notice::TakenOver);
                self.effects.push(effect);
            }
            match was {
                Stage::Serving => {}
                Stage::Claiming | Stage::Asking | Stage::Setting | Stage::Publishing | Stage::Closing => {
                    self.finish_if_possible(key);
                }
            }
        }
    }

    pub(super) fn take_over(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key) else { return };
        let found = self.inherited(owned.partition, &owned.client);
        let wish = match &owned.purpose {
            Purpose::Connect(wish) => wish.clone(),
            Purpose::Keep(_) => {
                self.take_over_absent(key, found);
                return;
            }
        };
        let had_state = found.is_some();
        let log_now_ms = self.log_now_ms();
        let lower_final = found.as_ref().and_then(|found| self.final_of(key, found.nonce));
        let mut taken = take_over(&wish, owned.nonce, found, lower_final, log_now_ms);
        if !self.rules.holds(Rule::V1) {
            taken.newly_due.clear();
        }
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if let Some(reason) = taken.denied
            && let Some(port) = owned.port.take()
        {
            self.by_connection.remove(&port.id);
            self.effects.push(port.tell(Notice::Denied(reason)));
        }
        let is_claimed = !self.rules.holds(Rule::F8) && !had_state && self.has_other_claims(key);
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let must_write = had_state || wish.expiry_s > 0 || wish.will.is_some();
        owned.session_present = taken.session_present || is_claimed;
        owned.state = Some(Box::new(taken.state));
        if let Some(epoch) = owned.epoch {
            let decision = owned.claim.handle(Event::OwnClaim { epoch, counted: true, needs_set: must_write });
            debug_assert!(matches!(decision, Decision::WriteSet { .. } | Decision::Told { .. }), "{decision:?}");
        }
        self.learn_ended(key);
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if !must_write {
            owned.stage = Stage::Serving;
            self.serve(key);
        } else if taken.newly_due.is_empty() {
            owned.stage = Stage::Setting;
            self.write_set(key);
        } else {
            self.ask_for_wills(key, &taken.newly_due);
        }
    }

    /// V2: where the partitions of these wills end, before anything of them may be appended.
    pub(super) fn ask_for_wills(&mut self, key: u64, newly_due: &[Will]) {
        let ask = self.next_ask();
        let Some(owned) = self.owned.get_mut(&key) else { return };
        owned.stage = Stage::Asking;
        if let Some(state) = &mut owned.state {
            let due = newly_due.iter().map(|will| DueWill { will: will.clone(), from: Origin::default() });
            state.due.extend(due);
        }
        self.asks.insert(ask, Asked::Will(key));
        self.effects.push(Effect::AskEnds { ask });
    }

    pub(super) fn on_will_ends(&mut self, key: u64, ends: &[Origin]) {
        let Some(owned) = self.owned.get_mut(&key).filter(|owned| owned.stage == Stage::Asking) else { return };
        let Some(state) = &mut owned.state else { return };
        for due in state.due.iter_mut().filter(|due| due.from == Origin::default()) {
            let place = self.routes.place_of_will(&due.will);
            let end = place.and_then(|place| ends.iter().find(|end| end.place == place));
            if let Some(end) = end {
                due.from = *end;
            }
        }
        owned.stage = Stage::Setting;
        self.write_set(key);
        if !self.rules.holds(Rule::V2) {
            self.publish_next(key);
        }
    }

    /// The own set was read back as owner (F5).
    pub(super) fn on_set_back(&mut self, key: u64, version: u32) {
        let Some(owned) = self.owned.get_mut(&key) else { return };
        match owned.stage {
            Stage::Setting if !self.rules.holds(Rule::F4) && version == 1 => self.write_rest(key),
            Stage::Setting if owned.version == version => {
                if matches!(owned.purpose, Purpose::Keep(_)) || owned.port.is_none() && !owned.told {
                    owned.stage = Stage::Publishing;
                    self.clean_below(key);
                    self.publish_next(key);
                } else {
                    owned.stage = Stage::Serving;
                    self.serve(key);
                }
            }
            // Perhaps it waited for an older record, whose fate was unknown until now.
            Stage::Publishing => self.publish_next(key),
            Stage::Closing => self.finish_if_possible(key),
            Stage::Claiming | Stage::Asking | Stage::Setting | Stage::Serving => {}
        }
    }

    /// The claim is complete: the client may be told.
    fn serve(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key) else { return };
        if owned.port.is_none() {
            self.on_gone(key, None);
            return;
        }
        if !owned.told {
            self.grant(key);
        }
        self.clean_below(key);
        self.settle(key);
        self.publish_next(key);
    }

    fn grant(&mut self, key: u64) {
        let settled = self.is_settled(key) && self.finals(key).is_empty();
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let Purpose::Connect(wish) = &owned.purpose else { return };
        let state = match &owned.state {
            Some(state) => state.clone(),
            None => Box::new(new_state(wish, Some(owned.nonce))),
        };
        owned.settled = settled;
        if let Some(kept) = &mut owned.state {
            // The session has it now; what is needed here is small.
            kept.subscriptions = Vec::new();
            kept.position.from = Vec::new();
            kept.position.in_flight = Vec::new();
        }
        tracing::trace!(nonce = ?owned.nonce, client = owned.client.client_id(), position = ?state.position, inbound = ?state.inbound, outbound = ?state.outbound, settled, "granted");
        let grant = Grant { nonce: owned.nonce, session_present: owned.session_present, state, settled };
        if let Some(port) = &owned.port {
            let effect = port.tell(Notice::Granted(Box::new(grant)));
            self.effects.push(effect);
        }
    }

    // ---- F11: what of lower nonces can still reach the log

    pub(super) fn is_settled(&self, key: u64) -> bool {
        let Some(owned) = self.owned.get(&key) else { return false };
        let Some(ledger) = self.ledgers.get(owned.partition as usize) else { return false };
        let Some(epoch) =
            owned.epoch.or_else(|| owned.told.then_some(Epoch { generation: u32::MAX, offset: i64::MAX }))
        else {
            return false;
        };
        let fenced = |incarnation| self.members.is_fenced(incarnation);
        if !self.rules.holds(Rule::F11) {
            return true;
        }
        let open = ledger.open_below(&owned.client, epoch, &fenced);
        tracing::trace!(client = owned.client.client_id(), nonce = ?owned.nonce, ?open, "lower nonces");
        open.iter().all(|claim| claim.nonce == owned.nonce)
    }

    /// F7: what lower nonces left behind goes, now that the own set was read back.
    pub(super) fn clean_below(&mut self, key: u64) {
        let Some(owned) = self.owned.get(&key).filter(|owned| owned.has_set) else { return };
        let Some(ledger) = self.ledgers.get(owned.partition as usize) else { return };
        let fenced = |incarnation| self.members.is_fenced(incarnation);
        let partition = owned.partition;
        let litter = ledger.owner_litter(&owned.client, owned.nonce, &fenced);
        // Whoever comes after this nonce may need the last words of those that its record still calls unresolved, and of
        // those whose wills are due.
        let found = ledger.inherited(&owned.client);
        let unresolved = found.iter().flat_map(|found| &found.state.inbound.unresolved);
        let due = found.iter().flat_map(|found| &found.state.due).map(|due| due.will.nonce);
        let needed: BTreeSet<Nonce> = unresolved.map(|unresolved| unresolved.nonce).chain(due).collect();
        let is_needed = |litter: &Vec<u8>| match record::parse(litter) {
            Ok(Key::Of { nonce, slot, .. }) => {
                needed.contains(&nonce) && matches!(slot, Slot::Claim | Slot::KeeperClaim | Slot::Final)
            }
            Ok(Key::Watermark(_)) | Err(_) => false,
        };
        let (kept, gone): (Vec<_>, Vec<_>) = litter.into_iter().partition(is_needed);
        for key in gone {
            self.append_unwatched(Log::Sessions, partition, key, None);
        }
        if let Some(owned) = self.owned.get_mut(&key) {
            owned.unclean = !kept.is_empty();
        }
    }

    /// The last words of the nonces that this one calls unresolved, as far as they were said.
    fn finals(&self, key: u64) -> Vec<(Nonce, Option<Inbound>)> {
        let Some(owned) = self.owned.get(&key) else { return Vec::new() };
        let Some(ledger) = self.ledgers.get(owned.partition as usize) else { return Vec::new() };
        let unresolved = owned.state.iter().flat_map(|state| &state.inbound.unresolved);
        let last = |nonce| Some((nonce, ledger.last_word(&owned.client, nonce)?.inbound));
        unresolved.filter_map(|unresolved| last(unresolved.nonce)).collect()
    }

    /// What an inherited state calls unresolved and is not any more.
    pub(super) fn learn_ended(&mut self, key: u64) {
        let finals = self.finals(key);
        if let Some(state) = self.owned.get_mut(&key).and_then(|owned| owned.state.as_mut()) {
            believe_ended(&mut state.inbound, &finals);
        }
    }

    /// Tells the session when no lower nonce is open any more.
    pub(super) fn settle(&mut self, key: u64) {
        if !self.is_settled(key) {
            return;
        }
        let finals = self.finals(key);
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if owned.settled || owned.stage != Stage::Serving {
            return;
        }
        owned.settled = true;
        let had_set = owned.has_set;
        if let Some(port) = &owned.port {
            tracing::trace!(nonce = ?owned.nonce, ?finals, "no lower nonce is open");
            let effect = port.tell(Notice::Settled(finals));
            self.effects.push(effect);
        }
        if had_set {
            self.clean_below(key);
        }
        self.publish_next(key);
    }

    /// A nonce said its last word: perhaps one that others wait for, perhaps one of ours.
    pub(super) fn on_final(&mut self, client: &ClientKey, nonce: Nonce) {
        if let Some(&key) = self.by_nonce.get(&nonce) {
            self.drop_owned(key);
        }
        self.after_settling_of(client);
    }

    /// [`Core::after_settling`] for what this node has of a client: a claim is gone, or said its last word.
    pub(super) fn after_settling_of(&mut self, client: &ClientKey) {
        let keys: Vec<u64> = self.by_client.get(client).into_iter().flatten().copied().collect();
        for key in keys {
            self.after_settling(key);
        }
    }

    /// Whatever waited for lower nonces may go on.
    pub(super) fn after_settling(&mut self, key: u64) {
        match self.owned.get(&key).map(|owned| owned.stage) {
            Some(Stage::Serving) => self.settle(key),
            Some(Stage::Publishing) => self.publish_next(key),
            Some(Stage::Claiming | Stage::Asking | Stage::Setting | Stage::Closing) | None => {}
        }
    }

    pub(super) fn final_of(&self, key: u64, nonce: Nonce) -> Option<Inbound> {
        self.last_word(key, nonce)?.inbound
    }

    pub(super) fn last_word(&self, key: u64, nonce: Nonce) -> Option<LastWord> {
        let owned = self.owned.get(&key)?;
        self.ledgers.get(owned.partition as usize)?.last_word(&owned.client, nonce)
    }

    /// Whether a nonce said its last word.
    pub(super) fn has_ended(&self, key: u64, nonce: Nonce) -> bool {
        self.last_word(key, nonce).is_some()
    }
}
