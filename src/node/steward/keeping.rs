//! What a keeper does for absent clients (K1 to K3): wills whose time has come, sessions that expired, tombstones.

use std::collections::HashMap;
use std::mem;

use super::core::Core;
use super::effect::Log;
use super::owned::{Owned, Purpose, Stage};
use super::take_over::{inherit, since_ms};
use crate::ledger::claim::Event;
use crate::ledger::ids::Nonce;
use crate::ledger::record::ClientKey;
use crate::ledger::rules::Rule;
use crate::ledger::sessions::{Absent, Inherited};
use crate::ledger::state::Life;

/// A tombstone that did not show up in the log is written again after so long.
const AGAIN_MS: i64 = 10_000;

/// What was done lately.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Keys that were tombstoned, and when.
    tombstoned: HashMap<Vec<u8>, i64>,
    /// Sessions that this node had to give up, with their partitions. The log may not say that their clients are absent.
    left_behind: Vec<(u32, ClientKey)>,
}

impl Keeping {
    pub(super) fn forget(&mut self) {
        self.tombstoned.clear();
    }

    /// A session was given up.
    pub(super) fn left_behind(&mut self, partition: u32, client: ClientKey) {
        self.left_behind.push((partition, client));
    }
}

impl Core {
    pub(super) fn tick_keeping(&mut self) {
        let me = self.identity.incarnation;
        let mine: Vec<u32> =
            (0..self.partition_count()).filter(|partition| self.members.keeper_of(*partition) == Some(me)).collect();
        let mut room = self.limits.keeping_max.saturating_sub(self.keepers_under_way());
        for partition in mine {
            room -= self.keep(partition, room);
            self.clean(partition);
        }
        self.keep_left_behind();
        let old = self.now_ms - AGAIN_MS;
        self.keeping.tombstoned.retain(|_, at_ms| *at_ms > old);
    }

    /// How many sessions it claimed, at most `room`.
    fn keep(&mut self, partition: u32, room: usize) -> usize {
        let log_now_ms = self.log_now_ms();
        let Some(ledger) = self.ledgers.get(partition as usize) else { return 0 };
        let heard_ms = |incarnation| self.members.member(incarnation).map_or(i64::MIN, |member| member.append_ms);
        let dead = |incarnation| self.members.is_fenced(incarnation).then(|| heard_ms(incarnation));
        let due: Vec<Absent> = ledger
            .absent(log_now_ms, &dead)
            .filter(|absent| !self.by_client.contains_key(&absent.client))
            .filter(|absent| self.is_due(absent, log_now_ms) && self.is_left_alone(partition, absent))
            .take(room)
            .collect();
        let count = due.len();
        for absent in due {
            let nonce = self.keeper_nonce(absent.owner);
            let purpose = Purpose::Keep(absent.owner);
            self.append_claim(Owned::new(absent.client, partition, nonce, purpose, self.rules, self.now_ms));
        }
        count
    }

    /// Takes back what was given up, once its last word was read, unless its client came back first (K1).
    fn keep_left_behind(&mut self) {
        for (partition, client) in mem::take(&mut self.keeping.left_behind) {
            if self.by_client.contains_key(&client) {
                self.keeping.left_behind.push((partition, client));
                continue;
            }
            let Some(ledger) = self.ledgers.get(partition as usize) else { continue };
            let Some(absent) = ledger.absent_of(&client).filter(|absent| absent.life == Life::Connected) else {
                continue;
            };
            if ledger.last_word(&client, absent.owner).is_some() {
                let nonce = self.keeper_nonce(absent.owner);
                let purpose = Purpose::Keep(absent.owner);
                self.append_claim(Owned::new(client, partition, nonce, purpose, self.rules, self.now_ms));
            }
        }
    }

    /// K2: no two keepers' claims share a key.
    fn keeper_nonce(&mut self, expected: Nonce) -> Nonce {
        let own = self.random_nonce();
        if self.rules.holds(Rule::K2) { own } else { Nonce(expected.0.map(|byte| !byte)) }
    }

    fn keepers_under_way(&self) -> usize {
        self.owned.values().filter(|owned| matches!(owned.purpose, Purpose::Keep(_))).count()
    }

    /// Since when the client is absent, by the log's time; `None`: it is not.
    fn absent_since(
        &self,
        life: Life,
        incarnation: crate::ledger::ids::Incarnation,
        has_ended: bool,
        since_ms: i64,
    ) -> Option<i64> {
        match life {
            Life::Connected if has_ended => Some(since_ms),
            Life::Connected => self
                .members
                .is_fenced(incarnation)
                .then(|| self.members.member(incarnation).map_or(since_ms, |member| member.append_ms)),
            Life::Disconnected { .. } => Some(since_ms),
            Life::Deleted => None,
        }
    }

    fn is_due(&self, absent: &Absent, log_now_ms: i64) -> bool {
        let Some(since_ms) = self.absent_since(absent.life, absent.incarnation, false, absent.since_ms) else {
            return false;
        };
        let passed = |seconds: u32| since_ms.saturating_add(i64::from(seconds) * 1_000) <= log_now_ms;
        let over = absent.expiry_s < u32::MAX && passed(absent.expiry_s);
        over || absent.has_due || absent.will_delay_s.is_some_and(passed)
    }

    /// Nobody else is at it: its node is gone, or the nonce said its last word.
    fn is_left_alone(&self, partition: u32, absent: &Absent) -> bool {
        let last = || self.ledgers.get(partition as usize)?.last_word(&absent.client, absent.owner);
        self.members.is_fenced(absent.incarnation) || last().is_some()
    }

    /// The own K counted: what is due is done, unless it was done meanwhile.
    pub(super) fn take_over_absent(&mut self, key: u64, found: Option<Inherited>) {
        let log_now_ms = self.log_now_ms();
        let has_ended = found.as_ref().is_some_and(|found| self.has_ended(key, found.nonce));
        let since_ms = found
            .as_ref()
            .and_then(|found| self.absent_since(found.state.life, found.incarnation, has_ended, since_ms(found)));
        let last = found.as_ref().and_then(|found| self.final_of(key, found.nonce));
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let (Some(found), Some(since_ms)) = (found, since_ms) else {
            owned.stage = Stage::Closing;
            self.finish_if_possible(key);
            return;
        };
        let mut state = found.state;
        let passed = |seconds: u32| since_ms.saturating_add(i64::from(seconds) * 1_000) <= log_now_ms;
        let over = state.expiry_s < u32::MAX && passed(state.expiry_s);
        let will = state.will.take_if(|will| over || passed(will.delay_s));
        state.life = Life::Disconnected { since_ms };
        state.position.following = false;
        state.inbound = inherit(state.inbound, found.nonce, found.incarnation, last);
        owned.state = Some(Box::new(state));
        if let Some(epoch) = owned.epoch {
            owned.claim.handle(Event::OwnClaim { epoch, counted: true, needs_set: true });
        }
        owned.stage = Stage::Setting;
        self.learn_ended(key);
        if let Some(will) = will.filter(|_| self.rules.holds(Rule::V1)) {
            self.ask_for_wills(key, &[will]);
        } else {
            self.write_set(key);
        }
    }

    fn clean(&mut self, partition: u32) {
        let Some(ledger) = self.ledgers.get(partition as usize) else { return };
        let fenced = |incarnation| self.members.is_fenced(incarnation);
        let keys: Vec<Vec<u8>> = ledger
            .litter(&fenced)
            .filter(|key| !self.keeping.tombstoned.contains_key(key))
            .take(self.limits.tombstones_max)
            .collect();
        for key in keys {
            self.keeping.tombstoned.insert(key.clone(), self.now_ms);
            self.append_unwatched(Log::Sessions, partition, key, None);
        }
    }
}
