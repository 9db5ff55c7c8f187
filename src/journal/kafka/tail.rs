//! Following partitions: one parked Fetch per Kafka node, each answer handled when it comes.
//!
//! There is no task: [`KafkaTail::next`] does the work, so a reader that is slow slows only itself. A node has two
//! links. The long one carries a fetch session with everything that is followed there, parked until there is news. What
//! is followed anew while it is parked goes over the short one until the long one is back.
//!
//! Invariant: a partition's next offset is the end of the last batch, never that of the last record: compaction removes
//! records from the end of a batch, or all of them.

mod answer;
mod rest;
mod session;
mod unpack;

pub use answer::ends_of;
pub use session::{Asking, Wanted, sessionless};
pub use unpack::Packed;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka_protocol::messages::FetchRequest;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use uuid::Uuid;

use self::rest::Rest;
use self::session::Session;
use super::admin::Admin;
use super::connection::ReplyTo;
use super::link::{Arrival, Link};
use super::metadata::{Cluster, Metadata};
use super::options::KafkaOptions;
use super::stats::JournalStats;
use super::wire;
use crate::clock;
use crate::journal::{Ends, Isolation, JournalError, Offset, Partition, Tail, TailEvent, TopicIndex};

/// Answers that may wait for the reader; connections wait when there are more.
const ARRIVALS_MAX: usize = 4;
/// How long the short link's request is parked: so long may what is followed anew next have to wait.
const SHORT_WAIT_MS: u32 = 50;
const PAUSE_MIN: Duration = Duration::from_millis(30);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// One reader's partitions.
pub struct KafkaTail {
    options: Arc<KafkaOptions>,
    metadata: Metadata,
    cluster: watch::Receiver<Arc<Cluster>>,
    stats: Arc<JournalStats>,
    admin: Arc<Admin>,
    asking: Asking,
    follows: BTreeMap<Partition, Follow>,
    /// What the kafka topics were when they were first followed.
    topics: BTreeMap<TopicIndex, SeenTopic>,
    nodes: BTreeMap<i32, Node>,
    requests: BTreeMap<u64, Request>,
    next_number: u64,
    /// Positions that a leader found out of range.
    undecided: VecDeque<(Partition, u64)>,
    deciding: Option<Deciding>,
    events: VecDeque<TailEvent>,
    /// Something changed since the last [`KafkaTail::advance`].
    changed: bool,
    queue: mpsc::Sender<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

type Deciding = Pin<Box<dyn Future<Output = (Partition, u64, Result<Vec<Ends>, JournalError>)> + Send>>;

/// ```text
///          asked              answered
///   Free ───────► Asked ─────────────────► Free
///    ▲                │ error                ▲
///    │                ├──► Waiting ──────────┤
///    │                └──► Undecided ────────┘ (or the partition is not followed any more)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked for.
    Free,
    /// Part of a request that is under way.
    Asked,
    /// Its leader did not want to answer.
    Waiting {
        /// When to ask again.
        until: Instant,
    },
    /// Its ends are being asked for.
    Undecided,
}

#[derive(Debug)]
struct Follow {
    /// Tells what is followed anew from what was followed before.
    generation: u64,
    next: Offset,
    /// Of the last batch; −1 if there was none.
    last_epoch: i32,
    phase: Phase,
    failures: u32,
    ends: Option<Ends>,
}

struct SeenTopic {
    id: Uuid,
    partitions: u32,
}

struct Node {
    long: Link,
    short: Link,
    session: Session,
    long_is_out: bool,
    short_is_out: bool,
    /// The long link was sent out while the short one was: it comes back soon, and meanwhile nothing more goes over
    /// the short one, so that all partitions meet on the long one again.
    merging: bool,
    /// The link that is down and has something to do.
    needed: Option<Lane>,
    /// Of the long link.
    rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Long,
    Short,
}

struct Request {
    node: i32,
    lane: Lane,
    version: i16,
    /// With their generations, in order.
    partitions: Vec<(Partition, u64)>,
}

impl Request {
    fn generation(&self, partition: Partition) -> Option<u64> {
        let place = self.partitions.binary_search_by_key(&partition, |(asked, _)| *asked).ok()?;
        self.partitions.get(place).map(|(_, generation)| *generation)
    }
}

impl Tail for KafkaTail {
    fn follow(&mut self, partition: Partition, from: Offset) {
        self.drop_events(partition);
        let cluster = Arc::clone(&self.cluster.borrow());
        if let Some(topic) = cluster.topic(partition.topic) {
            let partitions = cluster.partitions(partition.topic);
            self.topics.entry(partition.topic).or_insert(SeenTopic { id: topic.id, partitions });
        }
        let generation = self.number();
        let follow = Follow { generation, next: from, last_epoch: -1, phase: Phase::Free, failures: 0, ends: None };
        self.follows.insert(partition, follow);
        self.stats.fetched(partition, clock::now());
        self.changed = true;
    }

    fn unfollow(&mut self, partition: Partition) {
        self.drop_events(partition);
        self.stop(partition);
        self.changed = true;
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = TailEvent> + Send + '_>> {
        Box::pin(self.next_event())
    }
}

impl KafkaTail {
    /// Follows nothing yet.
    pub fn new(admin: Arc<Admin>, stats: Arc<JournalStats>, isolation: Isolation) -> Self {
        let (queue, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let options = Arc::clone(&admin.options);
        let asking = Asking {
            names: admin.names.clone(),
            isolation,
            wait_ms: options.fetch_wait_ms,
            bytes_max: options.fetch_bytes_max,
            partition_bytes_max: options.fetch_partition_bytes_max,
        };
        Self {
            options,
            metadata: admin.metadata.clone(),
            cluster: admin.metadata.watch(),
            stats,
            admin,
            asking,
            follows: BTreeMap::new(),
            topics: BTreeMap::new(),
            nodes: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_number: 0,
            undecided: VecDeque::new(),
            deciding: None,
            events: VecDeque::new(),
            changed: false,
            queue,
            arrivals,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn drop_events(&mut self, partition: Partition) {
        self.events.retain(|event| match event {
            TailEvent::Batch(batch) => batch.partition != partition,
            TailEvent::Progress { partition: of, .. }
            | TailEvent::BelowLogStart { partition: of, .. }
            | TailEvent::Rewound { partition: of, .. }
            | TailEvent::Gap { partition: of, .. } => *of != partition,
            TailEvent::Recreated { .. } | TailEvent::PartitionsAdded { .. } => true,
        });
    }

    fn stop(&mut self, partition: Partition) {
        if self.follows.remove(&partition).is_some() {
            self.stats.unfollowed(partition);
        }
    }

    async fn next_event(&mut self) -> TailEvent {
        loop {
            if self.changed {
                self.advance(clock::now());
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                // What comes rarely is first.
                biased;
                changed = self.cluster.changed() => match changed {
                    Ok(()) => self.on_cluster(),
                    // The journal is gone: nothing will come any more.
                    Err(_) => std::future::pending().await,
                },
                (partition, generation, ends) = poll_deciding(&mut self.deciding), if self.deciding.is_some() => {
                    self.deciding = None;
                    self.on_decided(partition, generation, ends);
                }
                arrival = self.arrivals.recv() => if let Some(arrival) = arrival { self.handle_arrival(arrival) },
                () = sleep_until(wake_at.unwrap_or_else(clock::now).into()), if wake_at.is_some() => {}
            }
            // Before the events are handed out: so the next answers are on their way meanwhile.
            self.advance(clock::now());
        }
    }

    fn handle_arrival(&mut self, arrival: Arrival) {
        let now = clock::now();
        match arrival {
            Arrival::Opened { link, result } => {
                if result.is_err() {
                    self.metadata.refresh();
                }
                let links = self.nodes.values_mut().flat_map(|node| [&mut node.long, &mut node.short]);
                if let Some(link) = links.into_iter().find(|own| own.id() == link) {
                    link.on_opened(now, result);
                }
            }
            Arrival::Answer { request, reply } => self.on_answer(request, reply, now),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let waiting = self.follows.values().filter_map(|follow| match follow.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Free | Phase::Asked | Phase::Undecided => None,
        });
        let links = self.nodes.values().filter_map(|node| match node.needed? {
            Lane::Long => node.long.wake_at(),
            Lane::Short => node.short.wake_at(),
        });
        let rests = self.nodes.values().filter_map(|node| node.rest.wake_at());
        waiting.chain(links).chain(rests).min()
    }

    /// Asks for everything that is not being asked for.
    fn advance(&mut self, now: Instant) {
        self.changed = false;
        self.begin_deciding();
        for node in self.nodes.values_mut() {
            node.needed = None;
            node.rest.forget();
        }
        let mut wanted: BTreeMap<i32, BTreeMap<Partition, Wanted>> = BTreeMap::new();
        let cluster = Arc::clone(&self.cluster.borrow());
        let mut leaderless = false;
        for (partition, follow) in &mut self.follows {
            if let Phase::Waiting { until } = follow.phase
                && until <= now
            {
                follow.phase = Phase::Free;
            }
            if follow.phase != Phase::Free {
                continue;
            }
            let leader = cluster.leader(*partition);
            if let Some(node) = leader.and_then(|leader| leader.node) {
                let want = Wanted {
                    topic_id: cluster.topic(partition.topic).map(|topic| topic.id).unwrap_or_default(),
                    offset: follow.next.0,
                    leader_epoch: leader.map_or(-1, |leader| leader.epoch),
                    last_epoch: follow.last_epoch,
                };
                wanted.entry(node).or_default().insert(*partition, want);
            } else {
                follow.wait(now);
                leaderless = true;
            }
        }
        if leaderless {
            self.metadata.refresh();
        }
        self.retire(&cluster);
        for (node, wanted) in wanted {
            self.ask(node, &cluster, wanted, now);
        }
        for node in self.nodes.values().filter(|node| !node.short_is_out && node.needed != Some(Lane::Short)) {
            node.short.rest();
        }
    }

    /// Gives up links to nodes that lead nothing that is followed.
    fn retire(&mut self, cluster: &Cluster) {
        let leaders: BTreeSet<i32> =
            self.follows.keys().filter_map(|partition| cluster.leader(*partition)?.node).collect();
        self.nodes.retain(|id, node| leaders.contains(id) || node.long_is_out || node.short_is_out);
    }

    fn ask(&mut self, id: i32, cluster: &Cluster, wanted: BTreeMap<Partition, Wanted>, now: Instant) {
        if !self.nodes.contains_key(&id) {
            let node = Node {
                long: Link::new(self.number(), self.stats.pulse()),
                short: Link::new(self.number(), self.stats.pulse()),
                session: Session::default(),
                long_is_out: false,
                short_is_out: false,
                merging: false,
                needed: None,
                rest: Rest::default(),
            };
            self.nodes.insert(id, node);
        }
        let number = self.number();
        let endpoint = cluster.nodes.get(&id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(lane) = node.free_lane(now) else { return };
        let link = match lane {
            Lane::Long => &mut node.long,
            Lane::Short => &mut node.short,
        };
        let Some(connection) = link.get(now, endpoint, &self.options, &self.queue) else {
            node.needed = Some(lane);
            return;
        };
        let Ok(version) = connection.version::<FetchRequest>() else {
            tracing::error!(id, "the Kafka node is too old to be followed");
            return;
        };
        let partitions: Vec<Partition> = wanted.keys().copied().collect();
        let wanted = wanted.into_iter().map(|(partition, want)| (partition, want.in_version(version))).collect();
        let (request, wait_ms) = match lane {
            Lane::Long => {
                node.merging = node.short_is_out;
                let wait_ms = if node.merging { SHORT_WAIT_MS } else { self.asking.wait_ms };
                (node.session.request(&self.asking, wanted).with_max_wait_ms(wait_ms.cast_signed()), wait_ms)
            }
            Lane::Short => {
                (sessionless(&self.asking, &wanted).with_max_wait_ms(SHORT_WAIT_MS.cast_signed()), SHORT_WAIT_MS)
            }
        };
        let reply = ReplyTo::Actor { queue: self.queue.clone(), request: number };
        let sent =
            wire::encode(&request, version, connection.next_correlation(), connection.client_id()).and_then(|frame| {
                let wait = Duration::from_millis(wait_ms.into());
                connection.send(frame, wait, reply).map_err(|lost| lost.to_string())
            });
        if let Err(error) = sent {
            tracing::debug!(error, "a Fetch request could not be sent");
            link.on_lost(now);
            node.session.reset();
            self.metadata.refresh();
            return;
        }
        match lane {
            Lane::Long => {
                node.long_is_out = true;
                node.rest.on_asked(now, Duration::from_micros(self.options.fetch_interval_us));
            }
            Lane::Short => node.short_is_out = true,
        }
        self.stats.fetch_requests.fetch_add(1, Ordering::Relaxed);
        let mut asked = Vec::with_capacity(partitions.len());
        for partition in partitions {
            if let Some(follow) = self.follows.get_mut(&partition) {
                follow.phase = Phase::Asked;
                asked.push((partition, follow.generation));
            }
        }
        self.requests.insert(number, Request { node: id, lane, version, partitions: asked });
    }

    fn begin_deciding(&mut self) {
        if self.deciding.is_none()
            && let Some((partition, generation)) = self.undecided.pop_front()
        {
            let admin = Arc::clone(&self.admin);
            self.deciding = Some(Box::pin(async move { (partition, generation, admin.ends(&[partition]).await) }));
        }
    }
}

impl Node {
    /// The link that can be sent out.
    fn free_lane(&mut self, now: Instant) -> Option<Lane> {
        match (self.long_is_out, self.short_is_out) {
            (false, _) if self.rest.holds_back(now) => None,
            (false, _) => Some(Lane::Long),
            (true, false) if !self.merging => Some(Lane::Short),
            (true, _) => None,
        }
    }
}

async fn poll_deciding(deciding: &mut Option<Deciding>) -> (Partition, u64, Result<Vec<Ends>, JournalError>) {
    match deciding {
        Some(deciding) => deciding.await,
        None => std::future::pending().await,
    }
}

impl Follow {
    fn wait(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(6)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waiting { until: now + pause };
    }
}
