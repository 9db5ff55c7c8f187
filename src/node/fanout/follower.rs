//! A connection that has subscriptions, and where its session is in each partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Fanout;
use super::lag::Lag;
use super::round::Round;
use crate::journal::{Offset, Partition};
use crate::ledger::ids::Place;
use crate::mqtt::{ClientId, TopicFilter};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, Notice};

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) client_id: ClientId,
    pub(super) mailbox: Arc<Mailbox>,
    /// Sorted by filter.
    pub(super) filters: Vec<Subscribed>,
    /// The session outlives the connection: its position matters.
    pub(super) durable: bool,
    pub(super) lag: Option<Box<Lag>>,
}

#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) filter: TopicFilter,
    pub(super) round: Arc<Round>,
}

impl Follower {
    pub(super) fn find(&self, filter: &TopicFilter) -> Result<usize, usize> {
        self.filters.binary_search_by(|subscribed| subscribed.filter.cmp(filter))
    }
}

impl Fanout {
    /// The partitions that the follower's subscriptions can touch, with where the earliest of them starts there; those
    /// that have not started are left out.
    fn touched(&self, follower: &Follower) -> BTreeMap<Partition, Offset> {
        let mut touched: BTreeMap<Partition, Offset> = BTreeMap::new();
        for subscribed in &follower.filters {
            for want in self.interest.wants_of(&self.mapping, &subscribed.filter) {
                for partition in self.interest.partitions_of(want) {
                    let Some(start) = subscribed.round.in_force_from(partition) else { continue };
                    touched.entry(partition).and_modify(|first| *first = start.min(*first)).or_insert(start);
                }
            }
        }
        touched
    }

    /// Where the session is: all before it was handed over. Sorted. Empty for a session that ends with its connection.
    pub(super) fn position_of(&self, connection: ConnectionId) -> Vec<(Place, i64)> {
        let Some(follower) = self.followers.get(&connection).filter(|follower| follower.durable) else {
            return Vec::new();
        };
        let mut position = Vec::new();
        for (partition, start) in self.touched(follower) {
            let missed = follower.lag.as_ref().and_then(|lag| lag.from.get(&partition)).copied();
            let missed = missed.map(|from| self.sweeps.position(partition, connection).unwrap_or(from));
            let at = missed.or_else(|| self.positions.get(&partition).copied());
            if let (Some(at), Some(place)) = (at, self.places.place(partition)) {
                position.push((place, at.max(start).0.max(0)));
            }
        }
        position.sort_unstable();
        position
    }

    /// Has the session write its position.
    pub(super) fn tell_position(&self, connection: ConnectionId) {
        let from = self.position_of(connection);
        let following = self.watermarks.is_following(connection);
        if let Some(follower) = self.followers.get(&connection) {
            follower.mailbox.post(Notice::Positions { following, from });
        }
    }

    /// The sessions that outlive their connection and touch such a partition, in order.
    pub(super) fn durable_touching(&self, is_such: impl Fn(Partition) -> bool) -> Vec<ConnectionId> {
        let touches = |connection: &ConnectionId| {
            let follower = self.followers.get(connection);
            follower.is_some_and(|follower| self.touched(follower).keys().any(|&partition| is_such(partition)))
        };
        self.watermarks.sessions().map(|(connection, _)| connection).filter(touches).collect()
    }
}
