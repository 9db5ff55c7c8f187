//! What connections want: subscriptions brought in and out of force, sessions resumed, positions when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::commands::{Command, Subscriber};
use super::follower::{Follower, Subscribed};
use super::interest::Want;
use super::lag::{FROM_LOG_START, Lag, Waits};
use super::round::Round;
use super::snapshots::{Beginning, wants_retained};
use super::watermark::Standing;
use super::{Entry, Fanout};
use crate::journal::{Offset, Partition, Tail};
use crate::ledger::ids::Place;
use crate::ledger::state::Position;
use crate::mqtt::TopicFilter;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Notice;
use crate::session::{Follow, Parting};

impl Fanout {
    pub(super) fn on_command(&mut self, command: Command, tail: &mut dyn Tail) {
        match command {
            Command::Begin => {
                if let Some(retaining) = self.retaining.as_deref() {
                    retaining.ask_replay();
                }
            }
            Command::Retain(ticket) => {
                if let Some(retaining) = self.retaining.as_deref_mut() {
                    retaining.on_retain(ticket);
                }
            }
            Command::DoubtRetain(ticket, partition) => {
                if let Some(retaining) = self.retaining.as_deref_mut() {
                    retaining.on_doubt(ticket, partition);
                }
            }
            Command::Retained(sequence, outcome) => {
                if let Some(retaining) = self.retaining.as_deref_mut() {
                    retaining.on_outcome(sequence, outcome);
                }
            }
            Command::Follow { subscriber, packet_id, filters } => {
                let connection = subscriber.connection;
                self.add_follower(subscriber, Standing::Following);
                for follow in filters {
                    self.subscribe(connection, follow);
                }
                self.collecting.waiting.push((connection, packet_id));
                self.ask();
            }
            Command::Unfollow { connection, packet_id, filters } => {
                for filter in &filters {
                    self.unsubscribe(connection, filter, tail);
                }
                self.leave_untouched(connection);
                let from = self.position_of(connection);
                if let Some(follower) = self.followers.get(&connection) {
                    follower.mailbox.post(Notice::Unfollowed { packet_id, from });
                }
            }
            Command::Resume { subscriber, filters, from } => self.on_resume(subscriber, filters, &from),
            Command::Gone { connection, parting } => self.on_gone(connection, parting, tail),
            Command::Room(connection) => {
                self.board_from(connection, Waits::Room);
                self.pump(connection);
            }
        }
    }

    fn add_follower(&mut self, subscriber: Subscriber, standing: Standing) {
        let Subscriber { connection, client_id, mailbox, durable } = subscriber;
        if durable {
            self.watermarks.add(connection, standing);
        }
        let follower = Follower { client_id, mailbox, filters: Vec::new(), durable, lag: None };
        self.followers.entry(connection).or_insert(follower);
    }

    fn subscribe(&mut self, connection: ConnectionId, follow: Follow) {
        let wants_retained = wants_retained(&follow);
        let Follow { filter, subscription, is_new: _, starts: _ } = follow;
        let round = Arc::clone(&self.collecting.round);
        let before = self.trie.insert(&filter, connection, Entry { subscription, round: Arc::clone(&round) });
        if wants_retained && self.retaining.is_some() {
            let (filter, is_replaced) = (filter.clone(), before.is_some());
            self.collecting.beginning.push(Beginning { connection, filter, subscription, is_replaced });
        }
        if let Some(before) = before {
            // A subscription that is replaced goes on without a gap [MQTT-3.8.4-3].
            self.trie.insert(&filter, connection, Entry { subscription, round: before.round });
            return;
        }
        for want in self.interest.wants_of(&self.mapping, &filter) {
            self.interest.add(want);
            self.collecting.partitions.extend(self.interest.partitions_of(want));
        }
        self.metrics.subscriptions.inc();
        if let Some(follower) = self.followers.get_mut(&connection) {
            if follower.lag.is_some() {
                self.collecting.round.keep_starts();
            }
            let place = follower.find(&filter).unwrap_or_else(|place| place);
            follower.filters.insert(place, Subscribed { filter, round });
        }
    }

    fn resumed_round(&self, starts: &[(Place, i64)]) -> Arc<Round> {
        let known = |&(place, start): &(Place, i64)| Some((self.places.partition(place)?, Offset(start)));
        let starts: BTreeMap<Partition, Offset> = starts.iter().filter_map(known).collect();
        if starts.is_empty() { Arc::clone(&self.long_passed) } else { Arc::new(Round::started_at(starts)) }
    }

    /// The subscriptions have started long ago; what decides is the position, and the starts that are still behind it.
    fn on_resume(&mut self, subscriber: Subscriber, filters: Vec<Follow>, from: &[(Place, i64)]) {
        let connection = subscriber.connection;
        self.add_follower(subscriber, Standing::Detached);
        let Some(mut follower) = self.followers.remove(&connection) else { return };
        let mut wants = Vec::new();
        for Follow { filter, subscription, is_new: _, starts } in filters {
            let round = self.resumed_round(&starts);
            let entry = Entry { subscription, round: Arc::clone(&round) };
            let Err(place) = follower.find(&filter) else { continue };
            self.trie.insert(&filter, connection, entry);
            for want in self.interest.wants_of(&self.mapping, &filter) {
                self.interest.add(want);
                wants.push(want);
            }
            self.metrics.subscriptions.inc();
            follower.filters.insert(place, Subscribed { filter, round });
        }
        let wanted: BTreeSet<Partition> = wants.iter().flat_map(|&want| self.interest.partitions_of(want)).collect();
        if !wanted.is_empty() {
            let from = self.resumed_from(&wants, &wanted, from);
            follower.lag = Some(Box::new(Lag::new(from, Waits::Start)));
            self.metrics.lagging.inc();
            self.collecting.resuming.push(connection);
            self.collecting.partitions.extend(wanted);
        }
        self.followers.insert(connection, follower);
        self.ask();
    }

    /// A partition that the position does not know did not exist then; one that only the key of an exact filter can have
    /// strayed to was not read then, and is read from its end.
    fn resumed_from(
        &self,
        wants: &[Want],
        wanted: &BTreeSet<Partition>,
        from: &[(Place, i64)],
    ) -> BTreeMap<Partition, Offset> {
        let known: BTreeMap<Partition, Offset> =
            from.iter().filter_map(|&(place, offset)| Some((self.places.partition(place)?, Offset(offset)))).collect();
        let asked_for = |partition: Partition| {
            wants.iter().any(|want| match *want {
                Want::Whole(topic) => topic == partition.topic,
                Want::Exact(exact) => exact == partition,
            })
        };
        let start = |&partition: &Partition| match known.get(&partition) {
            Some(&offset) => Some((partition, offset)),
            None if asked_for(partition) => Some((partition, FROM_LOG_START)),
            None => None,
        };
        wanted.iter().filter_map(start).collect()
    }

    fn on_gone(&mut self, connection: ConnectionId, parting: Option<Box<Parting>>, tail: &mut dyn Tail) {
        if let Some(mut parting) = parting {
            self.fill_in_position(connection, &mut parting);
            self.reports.parted(connection, parting);
        }
        self.watermarks.remove(connection);
        self.snapshots.remove(&connection);
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let filters: Vec<TopicFilter> = follower.filters.iter().map(|subscribed| subscribed.filter.clone()).collect();
        if let Some(lag) = follower.lag.take() {
            self.metrics.lagging.dec();
            for &partition in lag.from.keys() {
                self.sweeps.leave(partition, connection);
            }
        }
        for filter in &filters {
            self.unsubscribe(connection, filter, tail);
        }
        self.followers.remove(&connection);
    }

    /// Everything before it was acknowledged: neither handed over and unacknowledged, nor waiting, nor missed.
    fn fill_in_position(&self, connection: ConnectionId, parting: &mut Parting) {
        let Some(follower) = self.followers.get(&connection) else { return };
        let mut from = self.position_of(connection);
        follower.mailbox.lower(&mut from);
        for (_, origin) in &parting.unacked {
            if let Some((_, offset)) = from.iter_mut().find(|(place, _)| *place == origin.place) {
                *offset = origin.offset.min(*offset);
            }
        }
        parting.state.subscriptions.iter_mut().for_each(|subscription| subscription.forget_passed(&from));
        parting.state.position = Position { following: false, from, in_flight: parting.unacked.clone() };
    }

    fn unsubscribe(&mut self, connection: ConnectionId, filter: &TopicFilter, tail: &mut dyn Tail) {
        if self.trie.remove(filter, connection).is_none() {
            return;
        }
        self.metrics.subscriptions.dec();
        self.end_snapshot(connection, filter);
        if let Some(follower) = self.followers.get_mut(&connection)
            && let Ok(place) = follower.find(filter)
        {
            follower.filters.remove(place);
        }
        for want in self.interest.wants_of(&self.mapping, filter) {
            self.interest.remove(want);
            for partition in self.interest.partitions_of(want) {
                self.drop_unwanted(partition, tail);
            }
        }
    }

    /// What its remaining subscriptions do not touch it has not missed.
    fn leave_untouched(&mut self, connection: ConnectionId) {
        let Some(follower) = self.followers.get(&connection) else { return };
        let Some(lag) = &follower.lag else { return };
        let wants = follower.filters.iter().flat_map(|s| self.interest.wants_of(&self.mapping, &s.filter));
        let touched: BTreeSet<Partition> = wants.flat_map(|want| self.interest.partitions_of(want)).collect();
        let untouched: Vec<Partition> = lag.from.keys().copied().filter(|p| !touched.contains(p)).collect();
        for partition in untouched {
            self.sweeps.leave(partition, connection);
            self.arrive(connection, partition);
        }
    }
}
