//! What new subscriptions get of what is retained (R5; [`crate::ledger::retained::window`] has the rules).

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Fanout;
use super::retaining::News;
use super::round::Round;
use crate::clock;
use crate::journal::{Offset, Partition};
use crate::ledger::ids::Origin;
use crate::ledger::retained::marks::Vector;
use crate::ledger::retained::window::Window;
use crate::message::{Content, Message, Stamp};
use crate::mqtt::packet::{PublishProperties, RetainHandling};
use crate::mqtt::{QoS, TopicFilter};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{NO_TICK, Pushed};
use crate::session::{Delivery, Follow, Subscription};

/// Late records of one subscription that may wait for room.
const LATE_MAX: usize = 10_000;

/// A subscription that may still get retained messages.
#[derive(Debug)]
pub(super) struct Snapshot {
    subscription: Subscription,
    window: Window,
    /// Topics that came late.
    late: VecDeque<Box<str>>,
}

/// A subscription whose start is being asked for.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) connection: ConnectionId,
    pub(super) filter: TopicFilter,
    pub(super) subscription: Subscription,
    /// It was there before, with other options perhaps, and goes on without a gap.
    pub(super) is_replaced: bool,
}

/// Whether a SUBSCRIBE asks for what is retained (MQTT5 §3.8.3.1).
pub(super) fn wants_retained(follow: &Follow) -> bool {
    match follow.subscription.options.retain_handling {
        RetainHandling::Always => true,
        RetainHandling::IfNew => follow.is_new,
        RetainHandling::Never => false,
    }
}

impl Fanout {
    /// The starts of a round are known: from now on what is handed over is noted. Who is to be pumped.
    pub(super) fn begin_snapshots(&mut self, beginning: Vec<Beginning>, round: &Arc<Round>) -> Vec<ConnectionId> {
        let Some(retaining) = self.retaining.as_deref() else { return Vec::new() };
        let mut connections: Vec<ConnectionId> = Vec::new();
        for Beginning { connection, filter, subscription, is_replaced } in beginning {
            let is_there = |follower: &super::Follower| follower.find(&filter).is_ok();
            if !self.followers.get(&connection).is_some_and(is_there) {
                continue;
            }
            let wants = self.interest.wants_of(&self.mapping, &filter);
            let touched = wants.iter().flat_map(|&want| self.interest.partitions_of(want));
            let start_of = |partition: Partition| {
                let read = self.positions.get(&partition).copied();
                let started = round.in_force_from(partition).filter(|start| !is_replaced && start.0 >= 0);
                started.or(read).unwrap_or(Offset(0))
            };
            let starts: Vector =
                touched.filter_map(|partition| Some((self.places.place(partition)?, start_of(partition).0))).collect();
            let partitions = if filter.has_wildcard() {
                retaining.partitions()
            } else {
                let partition = retaining.store.partition_of(filter.as_str());
                partition..partition + 1
            };
            let window = Window::new(retaining.rules, filter.clone(), starts, partitions);
            let snapshots = self.snapshots.entry(connection).or_default();
            snapshots.retain(|snapshot| *snapshot.window.filter() != filter);
            snapshots.push(Snapshot { subscription, window, late: VecDeque::new() });
            connections.push(connection);
        }
        connections.dedup();
        connections
    }

    /// Hands over what is retained, as far as there is room that live messages do not need.
    pub(super) fn pump(&mut self, connection: ConnectionId) {
        let Some(retaining) = self.retaining.as_deref() else { return };
        let Some(snapshots) = self.snapshots.get_mut(&connection) else { return };
        let Some(follower) = self.followers.get(&connection) else {
            self.snapshots.remove(&connection);
            return;
        };
        let now_ms = clock::wall_ms();
        for snapshot in snapshots.iter_mut() {
            while let Some((step, delivery)) = snapshot.next(retaining, now_ms, follower.client_id.as_str()) {
                if let Some(delivery) = delivery {
                    let bytes = delivery.bytes();
                    match follower.mailbox.push_behind(delivery) {
                        (Pushed::Taken, waker) => self.wakers.extend(waker),
                        (Pushed::Full, _) if follower.mailbox.want_room(bytes) => continue,
                        (Pushed::Full, _) => return,
                        (Pushed::Gone, _) => {
                            self.snapshots.remove(&connection);
                            return;
                        }
                    }
                }
                snapshot.took(step);
            }
        }
        snapshots.retain(|snapshot| !snapshot.is_over());
        if snapshots.is_empty() {
            self.snapshots.remove(&connection);
        }
    }

    /// A message of the log was handed over.
    pub(super) fn note_sent(&mut self, connection: ConnectionId, topic: &str, origin: Option<Origin>) {
        let Some(origin) = origin else { return };
        for snapshot in self.snapshots.get_mut(&connection).into_iter().flatten() {
            snapshot.window.on_sent(topic, origin);
        }
    }

    /// `mqtt.retained` was read further.
    pub(super) fn on_retained_read(&mut self, news: &[News]) {
        let Some(retaining) = self.retaining.as_deref_mut() else { return };
        let marked = retaining.take_marked();
        if self.snapshots.is_empty() {
            return;
        }
        let mut connections = Vec::new();
        for (&connection, snapshots) in &mut self.snapshots {
            for snapshot in snapshots.iter_mut() {
                for News { partition, topic, applied, has_message } in news {
                    let is_late = snapshot.window.wants_late(*partition, topic, applied, *has_message);
                    if is_late && snapshot.late.len() < LATE_MAX {
                        snapshot.late.push_back(topic.clone());
                    }
                }
                for &partition in &marked {
                    snapshot.window.on_marks(&retaining.marks, retaining.incarnation, partition);
                }
            }
            connections.push(connection);
        }
        for connection in connections {
            self.pump(connection);
        }
    }

    pub(super) fn tick_snapshots(&mut self) {
        for snapshots in self.snapshots.values_mut() {
            for snapshot in snapshots.iter_mut() {
                if snapshot.window.on_tick() {
                    self.metrics.retained_windows_given_up.inc();
                }
            }
            snapshots.retain(|snapshot| !snapshot.is_over());
        }
        self.snapshots.retain(|_, snapshots| !snapshots.is_empty());
    }

    pub(super) fn end_snapshot(&mut self, connection: ConnectionId, filter: &TopicFilter) {
        if let Some(snapshots) = self.snapshots.get_mut(&connection) {
            snapshots.retain(|snapshot| snapshot.window.filter() != filter);
            if snapshots.is_empty() {
                self.snapshots.remove(&connection);
            }
        }
    }
}

/// What a snapshot does once a message was handed over.
#[derive(Debug)]
enum Step {
    Walked(crate::ledger::retained::store::Cursor),
    Late,
}

impl Snapshot {
    /// What comes next; without a message where it is not for this client.
    fn next(
        &mut self,
        retaining: &super::retaining::Retaining,
        now_ms: i64,
        client_id: &str,
    ) -> Option<(Step, Option<Delivery>)> {
        let is_for_it = |message: &Message| {
            let own = self.subscription.options.no_local && message.publisher() == Some(client_id);
            !own && !message.is_expired(now_ms)
        };
        if let Some((cursor, entry)) = self.window.next(&retaining.store) {
            let message = entry.message().filter(|message| is_for_it(message));
            return Some((Step::Walked(cursor), message.map(|message| self.delivery(message.clone()))));
        }
        let topic = self.late.front()?;
        let entry = retaining.store.get(topic).filter(|entry| self.window.still_wants(topic, entry.best()));
        let delivery = entry.and_then(|entry| match entry.message() {
            Some(message) => is_for_it(message).then(|| self.delivery(message.clone())),
            None => Some(self.clear(topic)),
        });
        Some((Step::Late, delivery))
    }

    fn took(&mut self, step: Step) {
        match step {
            Step::Walked(cursor) => self.window.walked(cursor),
            Step::Late => {
                self.late.pop_front();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.window.is_over() && self.late.is_empty()
    }

    /// [MQTT-3.3.1-8]
    fn delivery(&self, message: Message) -> Delivery {
        Delivery {
            qos: self.subscription.options.qos.min(message.qos()),
            message,
            retain: true,
            subscription_ids: self.subscription.id.into_iter().collect::<SmallVec<_>>(),
            origin: None,
            tick: NO_TICK,
        }
    }

    /// As the message would have come that cleared the topic.
    fn clear(&self, topic: &str) -> Delivery {
        let properties = PublishProperties::default();
        let content = Content { qos: QoS::ExactlyOnce, retain: true, properties: &properties, payload: b"" };
        let message = Message::new(topic, content, Stamp::default());
        Delivery { retain: self.subscription.options.retain_as_published, ..self.delivery(message) }
    }
}
