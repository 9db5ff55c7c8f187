//! Membership: heartbeats, suspension, eviction, and the fence that follows it (F9).

use std::collections::{BTreeSet, HashMap};

use super::core::{Core, Standing, Why};
use super::effect::{Effect, Log};
use crate::journal::Outcome;
use crate::ledger::ids::Incarnation;
use crate::ledger::members::ClusterApplied;
use crate::ledger::record::cluster::{self, ClusterKey, Node};
use crate::ledger::rules::Rule;

/// A fence that did not reach every partition is tried again after so long.
const FENCE_AGAIN_MS: i64 = 2_000;

#[derive(Debug, Default)]
pub(super) struct Cluster {
    beat: u64,
    next_beat_ms: i64,
    /// A heartbeat has no outcome yet.
    beating: bool,
    /// When the last heartbeat that was read back was sent.
    heard_ms: i64,
    /// Since when the state logs have been read again, if they are.
    read_since_ms: i64,
    /// Send times of heartbeats that were not read back yet.
    sent: HashMap<u64, i64>,
    /// Incarnations that this node proposed to evict.
    proposed: BTreeSet<Incarnation>,
    /// Fences under way, or to be tried again then.
    fencing: HashMap<Incarnation, i64>,
}

impl Core {
    /// Appends a heartbeat.
    pub(super) fn beat(&mut self) {
        self.cluster.beat += 1;
        let beat = self.cluster.beat;
        self.cluster.next_beat_ms = self.now_ms + self.limits.heartbeat_ms;
        if self.cluster.beating {
            return;
        }
        self.cluster.beating = true;
        self.cluster.sent.insert(beat, self.now_ms);
        let me = self.identity.incarnation;
        let node = self.node_record();
        self.append(Why::Heartbeat, Log::Cluster, 0, ClusterKey::Node(me).encode(), Some(node.encode()));
    }

    /// This node ended by itself: as good as fenced, if nothing of it is left.
    pub(super) fn leave(&mut self) {
        if !self.owned.is_empty() || self.standing != Standing::Acting {
            return;
        }
        self.standing = Standing::Over;
        self.cluster.beat += 1;
        let node = Node { left: true, ..self.node_record() };
        let key = ClusterKey::Node(self.identity.incarnation).encode();
        self.append_unwatched(Log::Cluster, 0, key, Some(node.encode()));
    }

    fn node_record(&self) -> Node {
        Node {
            node_id: self.identity.node_id.clone().into(),
            producer_id: self.identity.producer_id,
            beat: self.cluster.beat,
            started_ms: self.identity.started_ms,
            left: false,
        }
    }

    pub(super) fn on_beat_outcome(&mut self, outcome: Outcome) {
        self.cluster.beating = false;
        match outcome {
            Outcome::Written(_) => {}
            // The next one is due at once: a node that cannot write must know soon when it can again.
            Outcome::Refused(_) | Outcome::Unknown => self.cluster.next_beat_ms = self.now_ms,
        }
    }

    pub(super) fn on_cluster_record(&mut self, offset: i64, append_ms: i64, key: &[u8], value: Option<&[u8]>) {
        let newest_ms = self.members.log_now_ms();
        let applied = self.members.apply(offset, append_ms, key, value);
        if self.members.log_now_ms() > newest_ms {
            self.log_seen_ms = self.now_ms;
        }
        match applied {
            ClusterApplied::Beat { incarnation, beat, .. } if incarnation == self.identity.incarnation => {
                self.on_own_beat(beat);
            }
            ClusterApplied::Evicted { incarnation, .. } if incarnation == self.identity.incarnation => {
                self.end("the others took this node for dead and fenced it");
            }
            ClusterApplied::Fenced { incarnation, .. } | ClusterApplied::Beat { incarnation, left: true, .. } => {
                self.on_fenced(incarnation);
            }
            ClusterApplied::Generation { name } => self.on_generation_asked(name),
            ClusterApplied::Beat { .. }
            | ClusterApplied::Evicted { .. }
            | ClusterApplied::KafkaTopic { .. }
            | ClusterApplied::Fingerprint(_)
            | ClusterApplied::Gone(_)
            | ClusterApplied::Ignored(_) => {}
        }
    }

    /// The own heartbeat was read: everything before it in `mqtt.cluster` was read, too, and says nothing against us.
    fn on_own_beat(&mut self, beat: u64) {
        if let Some(sent_ms) = self.cluster.sent.remove(&beat) {
            self.cluster.heard_ms = self.cluster.heard_ms.max(sent_ms);
        }
        self.cluster.sent.retain(|other, _| *other > beat);
        let fresh = self.now_ms - self.cluster.heard_ms < self.limits.suspend_after_ms;
        match self.standing {
            Standing::Joining if fresh => self.act(),
            Standing::Suspended if fresh => {
                tracing::info!("heard of again: this node goes on");
                self.act();
            }
            Standing::Replaying | Standing::Joining | Standing::Acting | Standing::Suspended | Standing::Over => {}
        }
    }

    fn act(&mut self) {
        self.standing = Standing::Acting;
        self.effects.push(Effect::Suspend(false));
        self.tick_claims();
    }

    pub(super) fn tick_cluster(&mut self) {
        match self.standing {
            Standing::Replaying => return self.tick_replaying(),
            Standing::Over => return,
            Standing::Joining | Standing::Acting | Standing::Suspended => self.cluster.read_since_ms = self.now_ms,
        }
        let silent_ms = self.now_ms - self.cluster.heard_ms;
        if self.standing == Standing::Acting && silent_ms >= self.limits.suspend_after_ms {
            tracing::warn!(silent_ms, "no heartbeat of this node was acknowledged: it suspends until one is");
            self.standing = Standing::Suspended;
            self.effects.push(Effect::Suspend(true));
        }
        if self.now_ms >= self.cluster.next_beat_ms {
            self.beat();
        }
        if self.standing == Standing::Acting {
            self.evict_the_dead();
            self.fence_the_evicted();
        }
    }

    /// A node that reads its sessions again is alive, and is to be taken for dead only if that takes too long: until it
    /// says its last words others hold messages back.
    fn tick_replaying(&mut self) {
        let was_heard = self.cluster.beat > 0;
        let read_ms = self.now_ms - self.cluster.read_since_ms;
        if was_heard && read_ms <= self.limits.replaying_ms_max && self.now_ms >= self.cluster.next_beat_ms {
            self.beat();
        }
    }

    fn evict_the_dead(&mut self) {
        let me = self.identity.incarnation;
        let overdue = self.members.overdue(me, self.limits.patience);
        for dead in overdue.into_iter().filter(|other| !self.cluster.proposed.contains(other)).collect::<Vec<_>>() {
            tracing::warn!(%dead, "a node is silent: it is evicted");
            self.cluster.proposed.insert(dead);
            self.append_unwatched(
                Log::Cluster,
                0,
                ClusterKey::Eviction { node: dead, by: me }.encode(),
                Some(cluster::by(me)),
            );
        }
    }

    /// The node whose eviction record came first fences; if it is gone, the first of those that live.
    fn fence_the_evicted(&mut self) {
        let me = self.identity.incarnation;
        let now_ms = self.now_ms;
        let todo: Vec<(Incarnation, i64)> = self
            .members
            .to_fence()
            .filter(|(_, by)| *by == Some(me))
            .filter(|(dead, _)| self.cluster.fencing.get(dead).is_none_or(|again_ms| *again_ms <= now_ms))
            .filter_map(|(dead, _)| Some((dead, self.members.member(dead)?.node.producer_id)))
            .collect();
        for (incarnation, producer_id) in todo {
            self.cluster.fencing.insert(incarnation, i64::MAX);
            if !self.rules.holds(Rule::F9) {
                self.on_fenced_at(incarnation, true);
                continue;
            }
            self.effects.push(Effect::Fence { incarnation, producer_id });
        }
    }

    pub(super) fn on_fenced_at(&mut self, incarnation: Incarnation, everywhere: bool) {
        if !everywhere {
            self.cluster.fencing.insert(incarnation, self.now_ms + FENCE_AGAIN_MS);
            return;
        }
        let me = self.identity.incarnation;
        self.append_unwatched(Log::Cluster, 0, ClusterKey::Fenced(incarnation).encode(), Some(cluster::by(me)));
        // If that record gets lost, the fence is simply made again.
        self.cluster.fencing.insert(incarnation, self.now_ms + 5 * FENCE_AGAIN_MS);
    }

    fn on_fenced(&mut self, incarnation: Incarnation) {
        self.cluster.fencing.remove(&incarnation);
        self.cluster.proposed.remove(&incarnation);
        let keys: Vec<u64> = self.owned.keys().copied().collect();
        for key in keys {
            self.after_settling(key);
        }
    }
}
