//! Which keys may be removed, and by whom (F7, F10, K3).

use super::Sessions;
use super::answers::is_void;
use super::client::{Client, Run, Wait};
use crate::ledger::ids::{Epoch, Incarnation, Nonce};
use crate::ledger::record::{ClientKey, Slot, key, watermark_key};
use crate::ledger::rules::{Rule, Rules};

/// Says whether a node is fenced, or ended by itself.
type Fenced<'a> = &'a dyn Fn(Incarnation) -> bool;

impl Sessions {
    /// What the owner of a session removes **after it read its own set back** (F7): state of lower epochs, and, if the
    /// owner is a connection, lower claims that are final or fenced (K3). In the order in which the tombstones go out.
    pub fn owner_litter(&self, client: &ClientKey, own: Nonce, fenced: Fenced<'_>) -> Vec<Vec<u8>> {
        let Some(records) = self.clients.get(client) else { return Vec::new() };
        let Some(own) = records.run(own) else { return Vec::new() };
        let (Some(set), Some(own_claim)) = (&own.set, &own.claim) else { return Vec::new() };
        let mut keys = self.state_below(client, set.epoch);
        let may_remove_claims = own_claim.expected.is_none() || !self.rules.holds(Rule::K3);
        for run in records.runs().iter().filter(|_| may_remove_claims) {
            let Some(claim) = &run.claim else { continue };
            if claim.offset < own_claim.offset && is_over(run, fenced) {
                claim_keys(&mut keys, client, run);
            }
        }
        keys
    }

    /// The state of lower epochs, as a successor removes it (F7).
    pub fn state_below(&self, client: &ClientKey, epoch: Epoch) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let lower = |run: &&Run| run.epoch(self.generation).is_some_and(|lower| lower < epoch);
        for run in self.clients.get(client).into_iter().flat_map(Client::runs).filter(lower) {
            state_keys(&mut keys, client, run);
        }
        keys
    }

    /// What any node may remove, best the keeper of the partition: what sessions that ended leave behind (F10), and
    /// watermarks of fenced nodes that nothing refers to.
    pub fn litter(&self, fenced: Fenced<'_>) -> impl Iterator<Item = Vec<u8>> {
        let held = self.held.iter().filter(|(incarnation, _)| fenced(**incarnation));
        let without_set = held.flat_map(|(_, held)| held.range(..(Wait::SAID, 0))).map(|(_, number)| number);
        let without_set = without_set.filter(|number| !self.ended.contains(*number));
        let clients = self.ended.iter().chain(without_set).filter_map(|number| self.clients.at(*number));
        let keys = clients.flat_map(move |(client, records)| {
            let mut keys = Vec::new();
            of_client(&mut keys, client, records, self.rules, fenced);
            keys
        });
        let unused = |incarnation: &&Incarnation| fenced(**incarnation) && !self.referred.contains_key(*incarnation);
        keys.chain(self.watermarks.keys().filter(unused).map(|incarnation| watermark_key(*incarnation)))
    }

    /// Whether any record here still names a node: until then nothing about it may be removed from `mqtt.cluster`.
    /// Looks at every session: to be asked of nodes that are gone, and rarely.
    pub fn names(&self, incarnation: Incarnation) -> bool {
        let claims = |client: &Client| {
            client.runs().iter().any(|run| run.claim.as_ref().is_some_and(|claim| claim.incarnation == incarnation))
        };
        self.referred.contains_key(&incarnation)
            || self.watermarks.contains_key(&incarnation)
            || self.held.contains_key(&incarnation)
            || self.clients.iter().any(|(_, client)| claims(client))
    }
}

fn of_client(keys: &mut Vec<Vec<u8>>, client: &ClientKey, records: &Client, rules: Rules, fenced: Fenced<'_>) {
    let runs = records.runs();
    // Of an earlier generation: no answer knows of it.
    keys.extend(runs.iter().filter(|run| run.is_stray).map(|run| key(client, run.nonce, Slot::Set)));
    for run in runs.iter().filter(|run| run.is_left_over()) {
        state_keys(keys, client, run);
        claim_keys(keys, client, run);
    }
    let Some((highest, set)) = records.highest(rules) else {
        // F10c, K3: no set is left.
        for run in runs.iter().filter(|run| run.claim.is_some() && is_over(run, fenced)) {
            state_keys(keys, client, run);
            claim_keys(keys, client, run);
        }
        return;
    };
    if !highest.is_over(set) {
        return;
    }
    let others = || runs.iter().filter(|run| run.nonce != highest.nonce);
    for run in others().filter(|run| run.set.is_some()) {
        state_keys(keys, client, run);
    }
    // F10b: every lower nonce is final or fenced, and no lower set is present.
    let is_open = |run: &Run| {
        let lower = run.claim.as_ref().is_some_and(|claim| claim.first < set.epoch.offset);
        lower && !is_over(run, fenced) && !is_void(records, run.nonce, rules)
    };
    if !rules.holds(Rule::F10) || !others().any(|run| run.set.is_some() || is_open(run)) {
        state_keys(keys, client, highest);
    }
}

/// Final, or of a fenced node: nothing of it can land any more.
fn is_over(run: &Run, fenced: Fenced<'_>) -> bool {
    run.last.is_some() || run.claim.as_ref().is_some_and(|claim| fenced(claim.incarnation))
}

/// Parts before the set, so that no part is ever without one.
fn state_keys(keys: &mut Vec<Vec<u8>>, client: &ClientKey, run: &Run) {
    keys.extend(run.parts.iter().map(|part| key(client, run.nonce, Slot::Part(part.kind))));
    keys.extend(run.set.iter().map(|_| key(client, run.nonce, Slot::Set)));
}

/// F after its claim: without it the nonce would seem to be open again.
fn claim_keys(keys: &mut Vec<Vec<u8>>, client: &ClientKey, run: &Run) {
    let slot = |expected: Option<Nonce>| if expected.is_some() { Slot::KeeperClaim } else { Slot::Claim };
    keys.extend(run.claim.iter().map(|claim| key(client, run.nonce, slot(claim.expected))));
    keys.extend(run.last.iter().map(|_| key(client, run.nonce, Slot::Final)));
}
