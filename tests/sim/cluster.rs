//! The nodes of a run: whole nodes on one log, in one thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace::clock;
use millrace::config::{self, Config, Flag, Preset, Sources};
use millrace::journal::memory::{IncarnationId, SharedLog};
use millrace::ledger::rules::Rules;
use millrace::net::listener::Door;
use millrace::net::stream::Stream;
use millrace::ops::shutdown::Shutdown;
use millrace::ops::tasks::{self, Scope};
use millrace::server::{self, Ground};
use tokio::io::DuplexStream;

use crate::dice::Dice;
use crate::history::{Event, History};
use crate::plan::Plan;

/// A node that could not start is started again after this time.
const START_AGAIN: Duration = Duration::from_millis(500);
/// What a connection's buffers hold in each direction.
const STREAM_BYTES: usize = 4096;

/// What all parts of a run share.
pub(crate) struct Cluster {
    pub(crate) log: SharedLog,
    config: Config,
    rules: Rules,
    nodes: Mutex<Vec<Node>>,
    history: Mutex<History>,
    started: std::time::Instant,
}

#[derive(Debug, Default)]
struct Node {
    scope: Scope,
    shutdown: Shutdown,
    standing: Standing,
    life: Arc<Mutex<Life>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    #[default]
    Down,
    Up,
    Held,
    /// Leaving in order.
    Draining,
}

/// What a node's own tasks tell.
#[derive(Default)]
struct Life {
    door: Option<Door>,
    /// The incarnations of its journals.
    incarnations: Vec<IncarnationId>,
    has_ended: bool,
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn new(plan: &Plan, log: SharedLog) -> Arc<Self> {
        let nodes = std::iter::repeat_with(Node::default).take(plan.nodes + 1).collect();
        Arc::new(Self {
            log,
            config: config(plan),
            rules: plan.rules,
            nodes: Mutex::new(nodes),
            history: Mutex::default(),
            started: clock::now(),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from((clock::now() - self.started).as_millis()).unwrap()
    }

    pub(crate) fn record(&self, event: Event) {
        let at_ms = self.now_ms();
        tracing::info!(target: "sim", at_ms, ?event);
        lock(&self.history).push(at_ms, event);
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(crate) fn nodes(&self) -> usize {
        lock(&self.nodes).len()
    }

    pub(crate) fn standing(&self, node: usize) -> Standing {
        lock(&self.nodes)[node].standing
    }

    fn note(&self, node: usize, what: &'static str) {
        self.record(Event::Node { node, what });
    }

    /// Starts a new incarnation of a node that is down.
    pub(crate) fn start(self: &Arc<Self>, node: usize, seed: u64) {
        let (scope, shutdown, life) = (Scope::new(), Shutdown::new(), Arc::new(Mutex::new(Life::default())));
        lock(&self.nodes)[node] =
            Node { scope: scope.clone(), shutdown: shutdown.clone(), standing: Standing::Up, life: Arc::clone(&life) };
        self.note(node, "started");
        let cluster = Arc::clone(self);
        scope.enter(|| tasks::spawn("node", async move { cluster.live(node, seed, shutdown, life).await }));
    }

    async fn live(self: Arc<Self>, node: usize, seed: u64, shutdown: Shutdown, life: Arc<Mutex<Life>>) {
        let config = Config { node_id: format!("n{node}"), ..self.config.clone() };
        let mut dice = Dice::new(seed);
        let server = loop {
            let ground = Ground { log: Some(&self.log), seed: Some(dice.roll()), portless: true, rules: self.rules };
            let mut start = Box::pin(server::start_on(config.clone(), shutdown.clone(), ground));
            let started = std::future::poll_fn(|cx| {
                // Nobody else opens a journal meanwhile.
                let before = self.incarnations();
                let polled = start.as_mut().poll(cx);
                lock(&life).incarnations.extend((before..self.incarnations()).map(IncarnationId));
                polled
            });
            match started.await {
                Ok(mut server) => {
                    lock(&life).door = Some(server.door());
                    break server;
                }
                Err(error) => {
                    tracing::debug!(%error, node, "a node does not start");
                    self.note(node, "does not start yet");
                    tokio::time::sleep(START_AGAIN).await;
                }
            }
        };
        self.note(node, "serves");
        if let Err(error) = server.run().await {
            tracing::debug!(%error, node, "a node is over");
            self.note(node, "is over");
        }
        let mut life = lock(&life);
        life.door = None;
        life.has_ended = true;
    }

    fn incarnations(&self) -> usize {
        self.log.with(|log| log.incarnations())
    }

    /// Kills a node where it is.
    pub(crate) fn crash(&self, node: usize) {
        self.end(node, "crashed");
    }

    fn end(&self, node: usize, what: &'static str) {
        let ended = std::mem::take(&mut lock(&self.nodes)[node]);
        let incarnations = std::mem::take(&mut lock(&ended.life).incarnations);
        self.log.with(|log| incarnations.into_iter().for_each(|id| log.crash(id)));
        ended.scope.end();
        lock(&ended.life).door = None;
        self.note(node, what);
    }

    /// Nodes that ended on their own, as processes do that were fenced or drained.
    pub(crate) fn reap(&self) {
        for node in 0..self.nodes() {
            if lock(&self.nodes)[node].scope.spins() {
                self.end(node, "spins");
            }
            let life = Arc::clone(&lock(&self.nodes)[node].life);
            let has_ended = lock(&life).has_ended;
            if has_ended {
                self.end(node, "ended");
            }
        }
    }

    pub(crate) fn hold(&self, node: usize) {
        let mut nodes = lock(&self.nodes);
        nodes[node].scope.hold();
        nodes[node].standing = Standing::Held;
        drop(nodes);
        self.note(node, "held");
    }

    /// Holds a node still after so many steps of its tasks, wherever it then is.
    pub(crate) fn hold_after(&self, node: usize, polls: u64) {
        lock(&self.nodes)[node].scope.hold_after(polls);
    }

    /// Whether its tasks stand still.
    pub(crate) fn is_still(&self, node: usize) -> bool {
        lock(&self.nodes)[node].scope.is_still()
    }

    pub(crate) fn resume(&self, node: usize) {
        let mut nodes = lock(&self.nodes);
        let scope = nodes[node].scope.clone();
        if nodes[node].standing == Standing::Held {
            nodes[node].standing = Standing::Up;
        }
        drop(nodes);
        self.note(node, "resumed");
        scope.resume();
    }

    /// The journals of a node as it lives now.
    fn journals(&self, node: usize) -> Vec<IncarnationId> {
        let life = Arc::clone(&lock(&self.nodes)[node].life);
        let life = lock(&life);
        life.incarnations.clone()
    }

    /// What a node appends to a kafka topic takes so long, until it ends or this is taken back.
    pub(crate) fn slow_down(&self, node: usize, topic: &str, by_ms: u32) {
        self.log.with(|log| self.journals(node).into_iter().for_each(|id| log.slow_down(id, topic, by_ms)));
        self.note(node, "slowed down");
    }

    /// A node reads nothing for so long.
    pub(crate) fn deafen(&self, node: usize, for_ms: u32) {
        self.log.with(|log| self.journals(node).into_iter().for_each(|id| log.deafen(id, for_ms)));
        self.note(node, "deafened");
    }

    /// Whether a node serves clients.
    pub(crate) fn serves(&self, node: usize) -> bool {
        let life = Arc::clone(&lock(&self.nodes)[node].life);
        lock(&life).door.is_some()
    }

    pub(crate) fn drain(&self, node: usize) {
        let mut nodes = lock(&self.nodes);
        nodes[node].standing = Standing::Draining;
        let shutdown = nodes[node].shutdown.clone();
        drop(nodes);
        self.note(node, "drains");
        shutdown.drain();
    }

    pub(crate) fn put_wall_off(&self, node: usize, by_ms: i64) {
        lock(&self.nodes)[node].scope.put_wall_off(by_ms);
        self.note(node, "clock jumped");
    }

    /// Connects to a node; `None` where nobody listens.
    pub(crate) fn connect(&self, node: usize) -> Option<DuplexStream> {
        let nodes = lock(&self.nodes);
        let (scope, life) = (nodes[node].scope.clone(), Arc::clone(&nodes[node].life));
        drop(nodes);
        let mut life = lock(&life);
        let door = life.door.as_mut()?;
        let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
        scope.enter(|| door.let_in(Stream::Memory(theirs)));
        Some(ours)
    }

    /// Time passes for the log also while no node looks at it.
    pub(crate) fn advance_log(&self) {
        self.log.with(|log| log.advance(clock::true_wall_ms()));
    }

    /// Ends all nodes, without any event.
    pub(crate) fn close(&self) {
        for node in lock(&self.nodes).drain(..) {
            node.scope.end();
        }
    }
}

fn config(plan: &Plan) -> Config {
    let settings = [
        ("topics.messages.partitions", "3".to_owned()),
        ("topics.retained.partitions", "2".to_owned()),
        ("topics.sessions.partitions", "2".to_owned()),
        ("topics.state.delete_retention", "5m".to_owned()),
        ("topics.state.min_compaction_lag", "15s".to_owned()),
        ("limits.queue_packets_max", plan.queue_packets_max.to_string()),
        ("shutdown.accept_grace", "1s".to_owned()),
        ("journal.kind", "memory".to_owned()),
    ];
    let flags = settings.map(|(key, value)| Flag { flag: key.to_owned(), key: key.to_owned(), value }).into();
    match config::load(&Sources { preset: Preset::Dev, flags, ..Sources::default() }) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}"),
    }
}
