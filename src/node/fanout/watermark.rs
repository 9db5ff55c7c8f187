//! The `done` half of the node's watermark W (DESIGN §5.1): one record stands in for the positions of all sessions that
//! keep up.
//!
//! At every tick the positions of the tail are sampled. A sample goes out at the next tick: by then each session that
//! follows has acknowledged everything that was handed over before the sample (W2), or it is detached first (W3).
//!
//! ```text
//!              has not acknowledged all that came before the last sample
//!   Following ───────────────────────────────────────────────────────────▶ Detached
//!       ▲                                                                     │
//!       └─────────────────────────────────────────────────────────────────────┘
//!              has acknowledged all that came before the last sample (W1)
//! ```

use std::collections::BTreeMap;

use crate::ledger::ids::Place;
use crate::ledger::rules::{Rule, Rules};
use crate::node::connections::ConnectionId;

/// The tick of what is older than every sample: a message that was read again for a subscriber that lagged.
pub(super) const BEFORE_ALL_TICKS: u32 = 0;

/// Whether the watermark counts for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its position is the later one of its own record and the watermark.
    Following,
    /// Its position is its own record.
    Detached,
}

/// The rounds.
#[derive(Debug)]
pub(super) struct Watermarks {
    rules: Rules,
    tick: u32,
    /// Taken when `tick` began. Sorted.
    sample: Vec<(Place, i64)>,
    /// What went out last: all that a claimer can find. Sorted.
    emitted: Vec<(Place, i64)>,
    /// The log went back behind what was emitted: until the next one no session may follow.
    outdated: bool,
    sessions: BTreeMap<ConnectionId, Standing>,
}

/// What a tick brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// They follow no longer: neither this watermark nor a later one may go out before their explicit positions.
    pub(super) detach: Vec<ConnectionId>,
    /// They follow from now on, and have acknowledged more than any watermark says.
    pub(super) attach: Vec<ConnectionId>,
    /// The watermark to go out now.
    pub(super) emit: Option<Vec<(Place, i64)>>,
}

impl Default for Watermarks {
    fn default() -> Self {
        Self {
            rules: Rules::ALL,
            tick: BEFORE_ALL_TICKS + 1,
            sample: Vec::new(),
            emitted: Vec::new(),
            outdated: false,
            sessions: BTreeMap::new(),
        }
    }
}

impl Watermarks {
    /// Without sessions.
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// What is handed over now belongs to this tick.
    pub(super) fn tick(&self) -> u32 {
        self.tick
    }

    /// A session that outlives its connection; no change if it is known.
    pub(super) fn add(&mut self, connection: ConnectionId, standing: Standing) {
        self.sessions.entry(connection).or_insert(standing);
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.sessions.remove(&connection);
    }

    /// In order.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (ConnectionId, Standing)> + '_ {
        self.sessions.iter().map(|(&connection, &standing)| (connection, standing))
    }

    pub(super) fn is_following(&self, connection: ConnectionId) -> bool {
        self.sessions.get(&connection) == Some(&Standing::Following)
    }

    /// `positions`: where the tail is, sorted. `oldest_tick`: of what the session has not acknowledged, whether it waits,
    /// is on its way or was not even handed over; `None` if the session cannot follow now for another reason.
    pub(super) fn on_tick(
        &mut self,
        positions: Vec<(Place, i64)>,
        oldest_tick: impl Fn(ConnectionId) -> Option<u32>,
    ) -> Decision {
        let mut decision = Decision::default();
        let mut followers = 0_usize;
        for (&connection, standing) in &mut self.sessions {
            let keeps_up = oldest_tick(connection).is_some_and(|oldest| oldest >= self.tick);
            match *standing {
                Standing::Following if keeps_up || !self.rules.holds(Rule::W2) => followers += 1,
                Standing::Following => {
                    *standing = Standing::Detached;
                    if self.rules.holds(Rule::W3) {
                        decision.detach.push(connection);
                    }
                }
                Standing::Detached if keeps_up || !self.rules.holds(Rule::W1) => decision.attach.push(connection),
                Standing::Detached => {}
            }
        }
        let sample = std::mem::replace(&mut self.sample, positions);
        let is_news = !sample.is_empty() && sample != self.emitted;
        if is_news && (followers > 0 || self.outdated) {
            self.emitted.clone_from(&sample);
            self.outdated = false;
            decision.emit = Some(sample);
        }
        if self.outdated {
            decision.attach.clear();
        }
        for connection in &decision.attach {
            self.sessions.insert(*connection, Standing::Following);
        }
        self.tick += 1;
        decision
    }

    /// Kafka lost the end of a partition: what was sampled and emitted is beyond it. Those in `touching` that followed are
    /// detached.
    pub(super) fn on_rewound(&mut self, place: Place, end: i64, touching: &[ConnectionId]) -> Vec<ConnectionId> {
        for (_, offset) in self.sample.iter_mut().filter(|(sampled, _)| *sampled == place) {
            *offset = end.min(*offset);
        }
        self.outdated |= self.emitted.iter().any(|(emitted, offset)| *emitted == place && *offset > end);
        let mut detached = Vec::new();
        for &connection in touching {
            if let Some(standing @ Standing::Following) = self.sessions.get_mut(&connection) {
                *standing = Standing::Detached;
                detached.push(connection);
            }
        }
        detached
    }
}

#[cfg(test)]
mod tests;
