//! What each tick of the watermark does ([`super::watermark`] has the rounds).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Fanout;
use super::watermark::{Decision, Mark};
use crate::journal::Offset;
use crate::ledger::ids::Place;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::NO_TICK;

impl Fanout {
    pub(super) fn on_tick(&mut self) {
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
        let Decision { detach, attach, emit } = decision;
        for connection in detach.into_iter().chain(attach) {
            self.tell_position(connection);
        }
        if let Some(Mark { done, after }) = emit {
            self.metrics.watermarks.inc();
            self.reports.watermark(done, after);
        }
    }
}
