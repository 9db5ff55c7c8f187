//! What each tick of the watermark does ([`super::watermark`] has the rounds).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::watermark::Decision;
use super::{Fanout, WatermarkRound};
use crate::journal::Offset;
use crate::ledger::ids::Place;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::NO_TICK;

impl Fanout {
    pub(super) fn on_tick(&mut self) {
        self.tick_snapshots();
        if let Some(retaining) = self.retaining.as_deref_mut() {
            retaining.on_tick();
        }
        let place = |(&partition, at): (_, &Offset)| Some((self.places.place(partition)?, at.0));
        let mut positions: Vec<(Place, i64)> = self.positions.iter().filter_map(place).collect();
        positions.sort_unstable();
        let mut held: BTreeMap<ConnectionId, u32> = BTreeMap::new();
        for waiting in self.asked.iter().chain([&self.collecting]).flat_map(|open| &open.held) {
            let oldest = held.entry(waiting.connection).or_insert(NO_TICK);
            *oldest = waiting.delivery.tick.min(*oldest);
        }
        let followers = &self.followers;
        let decision = self.watermarks.on_tick(positions, |connection| {
            let follower = followers.get(&connection).filter(|follower| follower.lag.is_none())?;
            let held = held.get(&connection).copied().unwrap_or(NO_TICK);
            Some(follower.mailbox.oldest_tick().min(held))
        });
        self.tick.store(self.watermarks.tick(), Ordering::Relaxed);
        if decision.emit.is_some() {
            self.metrics.watermarks.inc();
        }
        self.carry_out(decision);
    }

    /// What is to be written is said before anybody is told, so that a position that is written afterwards is known to
    /// have been asked for.
    pub(super) fn carry_out(&self, decision: Decision) {
        let Decision { detach, attach, emit } = decision;
        let told: Vec<ConnectionId> = detach.iter().chain(&attach).copied().collect();
        if emit.is_some() || !told.is_empty() {
            self.reports.watermark(WatermarkRound { detached: detach, attached: attach, done: emit });
        }
        for connection in told {
            self.tell_position(connection);
        }
    }
}
