//! The actor that sends what is ready: one Produce request per node with the batches of all its partitions, the next
//! one when the last is answered and it is its [`Turn`] (group commit that clocks itself), and tells what became of them.

mod settle;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::lane::{Lane, Phase, Stamp};
use super::produce::{self, TopicBatches};
use super::turn::{Rules, Turn};
use super::{AppenderParts, Shared, lock};
use crate::clock;
use crate::journal::kafka::connection::{Connection, ReplyTo};
use crate::journal::kafka::link::{Arrival, Link};
use crate::journal::kafka::metadata::{Cluster, Metadata};
use crate::journal::kafka::stats::JournalStats;
use crate::journal::kafka::wire;
use crate::journal::{AckSink, Partition, Refusal, TopicIndex};

/// Answers that may wait for the sender; connections wait when there are more.
const ARRIVALS_MAX: usize = 64;
/// How often it is looked for appends that waited too long.
const EXPIRE_EVERY: Duration = Duration::from_millis(250);

pub(super) struct Sender {
    shared: Arc<Shared>,
    names: Vec<TopicName>,
    metadata: Metadata,
    cluster: watch::Receiver<Arc<Cluster>>,
    sink: Arc<dyn AckSink>,
    stats: Arc<JournalStats>,
    stamp: Stamp,
    lanes: Vec<Lane>,
    nodes: BTreeMap<i32, Node>,
    /// Under way, by number.
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    /// Lanes to be sent again, by time.
    waiting: BTreeSet<(Instant, usize)>,
    /// Lanes that are ready and have no leader.
    leaderless: BTreeSet<usize>,
    /// Lanes that are not idle.
    active: BTreeSet<usize>,
    expire_at: Option<Instant>,
    queue: mpsc::Sender<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

/// What goes to one Kafka node.
struct Node {
    link: Link,
    /// Lanes in the order in which they became ready.
    ready: VecDeque<usize>,
    turn: Turn,
}

struct Request {
    node: i32,
    version: i16,
    lanes: Vec<usize>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, parts: AppenderParts, stamp: Stamp) -> Self {
        let (queue, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut sender = Self {
            shared,
            names: parts.names,
            cluster: parts.metadata.watch(),
            metadata: parts.metadata,
            sink: parts.sink,
            stats: parts.stats,
            stamp,
            lanes: Vec::new(),
            nodes: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            waiting: BTreeSet::new(),
            leaderless: BTreeSet::new(),
            active: BTreeSet::new(),
            expire_at: None,
            queue,
            arrivals,
        };
        sender.on_cluster();
        sender
    }

    pub(super) async fn run(mut self) {
        while !self.is_done() {
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                arrival = self.arrivals.recv() => if let Some(arrival) = arrival { self.handle_arrival(arrival) },
                changed = self.cluster.changed() => match changed {
                    Ok(()) => self.on_cluster(),
                    Err(_) => break,
                },
                () = self.shared.wake.notified() => {}
                () = sleep_until(wake_at.unwrap_or_else(clock::now).into()), if wake_at.is_some() => {}
            }
            self.advance(clock::now());
        }
        // A record may have been put in just before the slots were closed.
        self.shared.close();
        self.active = (0..self.lanes.len()).collect();
        let now = clock::now();
        self.expire(now, now, self.why_closed());
    }

    fn why_closed(&self) -> Refusal {
        if self.shared.fenced.load(Ordering::Relaxed) { Refusal::Fenced } else { Refusal::Deadline }
    }

    fn is_done(&self) -> bool {
        self.shared.is_closed() && self.active.is_empty()
    }

    fn handle_arrival(&mut self, arrival: Arrival) {
        let now = clock::now();
        match arrival {
            Arrival::Opened { link, result } => {
                if result.is_err() {
                    self.metadata.refresh();
                }
                if let Some(node) = self.nodes.values_mut().find(|node| node.link.id() == link) {
                    node.link.on_opened(now, result);
                }
            }
            Arrival::Answer { request, reply } => self.on_answer(request, reply, now),
        }
    }

    /// Everything that is due.
    fn advance(&mut self, now: Instant) {
        let told = std::mem::take(&mut *lock(&self.shared.told));
        for lane in told {
            self.on_told(lane, now);
        }
        if self.shared.is_closed() {
            self.expire(now, now, self.why_closed());
        }
        while let Some(&(until, lane)) = self.waiting.first()
            && until <= now
        {
            self.waiting.pop_first();
            self.make_ready(lane, now);
        }
        if self.expire_at.is_some_and(|at| at <= now) {
            self.expire_overdue(now);
        }
        if self.expire_at.is_none() && !self.active.is_empty() {
            self.expire_at = Some(now + EXPIRE_EVERY);
        }
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        for id in ids {
            while self.send_if_due(id, now) {}
            self.rest_if_idle(id);
        }
    }

    /// A node that is down and leads nothing that waits may be as silent as it likes.
    fn rest_if_idle(&self, id: i32) {
        let Some(node) = self.nodes.get(&id) else { return };
        let is_waited_for = || self.active.iter().any(|lane| self.leader_of(*lane) == Some(id));
        if node.turn.in_flight == 0 && node.link.is_owed() && !is_waited_for() {
            node.link.rest();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let rules = Rules::of(&self.shared.options);
        let nodes = self.nodes.values().filter(|_| !self.shared.is_closed()).filter_map(|node| {
            let due_at = node.turn.due_at(rules)?;
            if node.link.is_up() { Some(due_at) } else { node.link.wake_at() }
        });
        nodes.chain(self.waiting.first().map(|(until, _)| *until)).chain(self.expire_at).min()
    }

    /// Records came for a lane, or it became large.
    fn on_told(&mut self, lane: usize, now: Instant) {
        match self.lanes.get(lane).map(|lane| lane.phase) {
            Some(Phase::Idle) => self.make_ready(lane, now),
            Some(Phase::Ready) => {
                let leader = self.leader_of(lane);
                if let Some(node) = leader.and_then(|leader| self.nodes.get_mut(&leader)) {
                    node.turn.has_group = true;
                }
            }
            Some(Phase::InFlight | Phase::Waiting { .. }) | None => {}
        }
    }

    fn leader_of(&self, lane: usize) -> Option<i32> {
        self.cluster.borrow().leader(self.lanes.get(lane)?.partition())?.node
    }

    /// Puts a lane in its leader's queue.
    fn make_ready(&mut self, index: usize, now: Instant) {
        let leader = self.leader_of(index);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.phase = Phase::Ready;
        self.active.insert(index);
        let Some(leader) = leader else {
            self.leaderless.insert(index);
            self.metadata.refresh();
            return;
        };
        let stats = &self.stats;
        let node = self.nodes.entry(leader).or_insert_with(|| Node::new(leader, stats));
        node.ready.push_back(index);
        node.turn.ready_since.get_or_insert(now);
        node.turn.has_group |= lane.slot.has_group();
    }

    fn on_cluster(&mut self) {
        let now = clock::now();
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        for index in 0..u16::try_from(self.names.len()).unwrap_or(u16::MAX) {
            let topic = TopicIndex(index);
            let added = self.shared.grow(topic, cluster.partitions(topic), self.lanes.len());
            let stamp = self.stamp;
            self.lanes.extend(added.into_iter().map(|slot| Lane::new(slot, stamp)));
        }
        let mut ready: Vec<usize> = std::mem::take(&mut self.leaderless).into_iter().collect();
        for node in self.nodes.values_mut() {
            node.turn.ready_since = None;
            ready.extend(node.ready.drain(..));
        }
        for lane in ready {
            self.make_ready(lane, now);
        }
        self.nodes
            .retain(|id, node| node.turn.in_flight > 0 || !node.ready.is_empty() || cluster.nodes.contains_key(id));
    }

    /// Sends the node's next request if it should not wait any longer; true if it did.
    fn send_if_due(&mut self, id: i32, now: Instant) -> bool {
        let options = Arc::clone(&self.shared.options);
        let endpoint = self.cluster.borrow().nodes.get(&id).cloned();
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        // A node that is down is called as soon as there is something for it.
        let is_due = node.turn.due_at(Rules::of(&options)).is_some_and(|at| at <= now || !node.link.is_up());
        if node.ready.is_empty() || !is_due || self.shared.is_closed() {
            return false;
        }
        let Some(connection) = node.link.get(now, endpoint.as_ref(), &options, &self.queue).cloned() else {
            if endpoint.is_none() {
                self.metadata.refresh();
            }
            return false;
        };
        let lanes = self.stage(id, options.request_bytes_max);
        !lanes.is_empty() && self.send(id, &connection, lanes, now)
    }

    /// Takes batches of lanes in turn, up to `bytes_max`.
    fn stage(&mut self, id: i32, bytes_max: usize) -> Vec<(usize, Bytes)> {
        let mut staged = Vec::new();
        let mut bytes = 0;
        let Some(node) = self.nodes.get_mut(&id) else { return staged };
        while bytes < bytes_max
            && let Some(index) = node.ready.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(index) else { continue };
            if let Some(batch) = lane.stage() {
                bytes += batch.len();
                staged.push((index, batch));
            } else {
                // Nothing is left, or something came just now.
                lane.phase = Phase::Idle;
                if lane.slot.leave() {
                    self.active.remove(&index);
                } else {
                    lane.phase = Phase::Ready;
                    node.ready.push_back(index);
                }
            }
        }
        node.turn.ready_since = node.turn.ready_since.filter(|_| !node.ready.is_empty());
        node.turn.has_group = false;
        staged
    }

    fn send(&mut self, id: i32, connection: &Connection, staged: Vec<(usize, Bytes)>, now: Instant) -> bool {
        let request = self.next_request;
        let wait_ms = self.shared.options.produce_wait_ms;
        let sent = connection.version_of(wire::PRODUCE, &wire::PRODUCE_SPOKEN).map_err(|error| error.to_string());
        let sent = sent.and_then(|version| {
            let topics = self.by_topic(&staged);
            let correlation = connection.next_correlation();
            let frame = produce::frame(&topics, wait_ms, version, correlation, connection.client_id())?;
            let reply = ReplyTo::Actor { queue: self.queue.clone(), request };
            connection
                .send(frame, Duration::from_millis(wait_ms.into()), reply)
                .map_err(|lost| lost.to_string())
                .map(|()| version)
        });
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        match sent {
            Ok(version) => {
                node.turn.on_sent(now);
                self.next_request += 1;
                self.stats.produce_requests.fetch_add(1, Ordering::Relaxed);
                for (index, batch) in &staged {
                    self.on_sent(*index, batch.len());
                }
                let lanes = staged.into_iter().map(|(index, _)| index).collect();
                self.requests.insert(request, Request { node: id, version, lanes });
                true
            }
            Err(error) => {
                tracing::debug!(error, "a Produce request could not be sent");
                node.link.on_lost(now);
                for (index, _) in staged.into_iter().rev() {
                    node.ready.push_front(index);
                }
                node.turn.ready_since.get_or_insert(now);
                node.turn.on_failed(now);
                self.metadata.refresh();
                false
            }
        }
    }

    fn on_sent(&mut self, index: usize, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let again = lane.attempts() > 0;
        lane.on_sent();
        if let Some(stats) = self.stats.topics.get(usize::from(lane.partition().topic.0)) {
            stats.batches_sent.fetch_add(1, Ordering::Relaxed);
            stats.batches_retried.fetch_add(u64::from(again), Ordering::Relaxed);
            stats.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn by_topic(&self, staged: &[(usize, Bytes)]) -> Vec<TopicBatches> {
        let mut topics: BTreeMap<TopicIndex, Vec<(i32, Bytes)>> = BTreeMap::new();
        for (index, batch) in staged {
            if let Some(lane) = self.lanes.get(*index) {
                let Partition { topic, number } = lane.partition();
                topics.entry(topic).or_default().push((i32::try_from(number).unwrap_or(i32::MAX), batch.clone()));
            }
        }
        let topics = topics.into_iter().filter_map(|(topic, batches)| {
            let name = self.names.get(usize::from(topic.0))?.clone();
            Some(TopicBatches { name, batches })
        });
        topics.collect()
    }
}

impl Node {
    fn new(id: i32, stats: &JournalStats) -> Self {
        let link = Link::new(u64::try_from(id).unwrap_or(u64::MAX), stats.pulse());
        Self { link, ready: VecDeque::new(), turn: Turn::default() }
    }
}
