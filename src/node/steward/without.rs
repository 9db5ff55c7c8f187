//! What a node does that breaks a rule on purpose: never but in a simulation, which shows what goes wrong then.

use super::core::{Core, Pending};
use super::effect::Log;
use super::owned::Stage;
use crate::journal::Offset;
use crate::ledger::ids::Epoch;
use crate::ledger::record::{self, Key, Slot};
use crate::ledger::rules::Rule;
use crate::ledger::state::Part;

impl Core {
    /// A record of a session is in the log and was not read back: by F2, F5 and F7 that says nothing.
    pub(super) fn on_acked_unread(&mut self, key: u64, pending: &Pending, at: Offset) {
        let rules = self.rules;
        if rules.holds(Rule::F2) && rules.holds(Rule::F5) && rules.holds(Rule::F7) {
            return;
        }
        let epoch = Epoch { generation: self.generation(), offset: at.0 };
        let Some(owned) = self.owned.get_mut(&key) else { return };
        let is_claim = matches!(record::parse(&pending.key), Ok(Key::Of { slot: Slot::Claim, .. }));
        let is_unread_claim = is_claim && owned.epoch.is_none() && owned.stage == Stage::Claiming;
        if is_unread_claim && !rules.holds(Rule::F2) {
            owned.epoch = Some(epoch);
            self.take_over(key);
        } else if is_unread_claim && !rules.holds(Rule::F7) {
            let partition = owned.partition;
            let ledger = self.ledgers.get(partition as usize);
            let keys = ledger.map(|ledger| ledger.state_below(&owned.client, epoch)).unwrap_or_default();
            keys.into_iter().for_each(|key| self.append_unwatched(Log::Sessions, partition, key, None));
        } else if !rules.holds(Rule::F5)
            && let Some(version) = pending.version
        {
            let nonce = owned.nonce;
            self.on_read_back(nonce, version);
        }
    }

    /// F8 broken on purpose: whether a session seems to be there because somebody claimed it.
    pub(super) fn has_other_claims(&self, key: u64) -> bool {
        let Some(owned) = self.owned.get(&key) else { return false };
        let claims = self.ledgers.get(owned.partition as usize).map(|ledger| ledger.claims(&owned.client));
        claims.iter().flatten().any(|claim| claim.nonce != owned.nonce)
    }

    /// F4 broken on purpose: the first set was read back, and what it left out follows.
    pub(super) fn write_rest(&mut self, key: u64) {
        let Some(state) = self.owned.get(&key).and_then(|owned| owned.state.as_deref()) else { return };
        let part = Part::Subscriptions(state.subscriptions.clone(), state.position.clone());
        self.write_part(key, None, &part);
    }
}
