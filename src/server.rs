//! Layer 6, the composition root: builds every actor, wires them, drains them when the process is to end.

mod actors;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;

use self::actors::Actors;
use crate::clock;
use crate::config::{Config, JournalChoice, Kafka};
use crate::journal::kafka::{JournalStats, KafkaJournal, KafkaOptions};
use crate::journal::memory::{self, FaultPlan, MemoryJournal, SharedLog};
use crate::journal::{AckSink, JournalError, SharedJournal};
use crate::ledger::rules::Rules;
use crate::net::listener::{Door, Listener};
use crate::node::Node;
use crate::node::connections::Connections;
use crate::node::mailbox::Notice;
use crate::node::retains::Retains;
use crate::node::writer::AckRouter;
use crate::ops::admin::{self, Readiness};
use crate::ops::metrics::{IntCounter, Metrics, TopicMetrics};
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks;
use crate::topics;

/// A Kafka that has been silent for so long is down: the tails hear from it twice a second.
const KAFKA_SILENT: Duration = Duration::from_secs(5);
/// How often the drain looks whether it is done.
const DRAIN_LOOK_MS: u64 = 20;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be bound.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Kafka could not be asked.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kafka topics are not as they must be.
    #[error("the kafka topics are not as they must be:\n{0}")]
    Topics(String),
    /// A defect of Millrace.
    #[error("metrics: {0}")]
    Metrics(String),
}

/// Why a node ended that was not asked to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(&'static str);

/// A node that serves.
pub struct Server {
    /// Where MQTT clients connect.
    pub mqtt: Vec<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are; `None` for a node without ports.
    pub ops: Option<SocketAddr>,
    node: Arc<Node>,
    journal: SharedJournal,
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
    /// Draining it ends the listeners, which outlive the beginning of the process's own drain.
    accepting: Shutdown,
    config: Config,
    door_random: StdRng,
    over: Arc<OnceLock<&'static str>>,
}

/// Starts a node: journal, kafka topics checked (and created if so configured), actors, listeners. It is ready when this
/// returns.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Server, StartError> {
    start_on(config, shutdown, Ground::default()).await
}

/// What a node stands on where it is not alone in its process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ground<'a> {
    /// A memory journal that several nodes share.
    pub log: Option<&'a SharedLog>,
    /// Where all randomness comes from; `None` is the operating system.
    pub seed: Option<u64>,
    /// Opens no port: clients come through [`Server::door`].
    pub portless: bool,
    /// Which rules of the state hold: all of them, but where a simulation shows what one is for.
    pub rules: Rules,
}

/// [`start`] on other ground than a process of its own.
///
/// # Errors
/// As [`start`].
pub async fn start_on(config: Config, shutdown: Shutdown, ground: Ground<'_>) -> Result<Server, StartError> {
    let mut random: StdRng = ground.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
    let metrics = Arc::new(Metrics::new(&config.node_id).map_err(|error| StartError::Metrics(error.to_string()))?);
    let connections = Arc::new(Connections::new(usize::try_from(config.limits.connections_max).unwrap_or(usize::MAX)));
    let retains = Arc::new(Retains::default());
    let counters = topic_counters(&config, &metrics)?;
    let router = Arc::new(AckRouter::new(Arc::clone(&connections), counters, Arc::clone(&retains)));
    let sink: Arc<dyn AckSink> = Arc::clone(&router) as Arc<dyn AckSink>;
    let opened = open_journal(&config, sink, ground.log).await?;
    if let Some(stats) = opened.stats {
        export_stats(&config, &metrics, stats)?;
    }
    let actors =
        Actors { config: &config, metrics, connections, retains, router, journal: Arc::clone(&opened.journal) };
    let (node, over) = actors.start(&ground, &shutdown, &mut random).await;
    let journal = opened.journal;
    let readiness = Arc::new(Readiness::new(config.ops.kafka_grace));
    watch_journal(&node.metrics, &readiness, &journal);
    let accepting = Shutdown::new();
    let door_random = StdRng::from_rng(&mut random);
    let mut server = Server {
        mqtt: Vec::new(),
        ops: None,
        node,
        journal,
        readiness,
        shutdown,
        accepting,
        config,
        door_random,
        over,
    };
    if !ground.portless {
        server.listen(&mut random).await?;
    }
    server.readiness.set_ready();
    tracing::info!(node = server.config.node_id, mqtt = ?server.mqtt, ops = ?server.ops, "ready");
    Ok(server)
}

/// In the order of [`StateTopics`].
fn topic_names(config: &Config) -> Vec<String> {
    let mut names = config.mapping.compiled.kafka_topics().to_vec();
    let topics = &config.topics;
    names.extend([&topics.retained.name, &topics.sessions.name, &topics.cluster.name].map(Clone::clone));
    names
}

impl Server {
    /// Opens the ports: all of them, or none and nothing is left running.
    async fn listen(&mut self, random: &mut StdRng) -> Result<(), StartError> {
        let address = self.config.ops.address;
        let ops = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("ops.address: cannot listen on {address}: {error}"))
        })?;
        self.ops = Some(ops.local_addr()?);
        let mut listeners = Vec::new();
        for &address in &self.config.listen.mqtt {
            let listener = Listener::bind(address, Arc::clone(&self.node), StdRng::from_rng(random))?;
            self.mqtt.push(listener.local_address()?);
            listeners.push(listener);
        }
        for listener in listeners {
            tasks::spawn("listener", listener.run(self.accepting.clone()));
        }
        let (metrics, readiness) = (Arc::clone(&self.node.metrics), Arc::clone(&self.readiness));
        tasks::spawn("ops", admin::serve(ops, metrics, readiness, self.shutdown.clone()));
        Ok(())
    }

    /// A way in that needs no port.
    pub fn door(&mut self) -> Door {
        Door::new(Arc::clone(&self.node), StdRng::from_rng(&mut self.door_random))
    }

    /// Serves until the shutdown is stopped, or drained to its end.
    ///
    /// # Errors
    /// This node was declared dead by the others, or fenced: its process must end ([`RunError`]).
    pub async fn run(self) -> Result<(), RunError> {
        self.shutdown.draining().await;
        self.readiness.set_draining();
        tokio::select! {
            biased;
            () = self.shutdown.stopped() => {}
            () = self.drain() => {}
        }
        self.accepting.drain();
        self.node.fanout.close();
        self.node.steward.close();
        self.shutdown.stop();
        tracing::info!("ended");
        self.over.get().map_or(Ok(()), |why| Err(RunError(why)))
    }

    /// Unready → keep accepting for the grace → paced DISCONNECTs → flush.
    async fn drain(&self) {
        tokio::time::sleep(self.config.shutdown.accept_grace).await;
        self.accepting.drain();
        let pause = Duration::from_secs(1) / self.config.shutdown.disconnects_per_second.max(1);
        for mailbox in self.node.connections.all() {
            mailbox.post(Notice::ShuttingDown);
            tokio::time::sleep(pause).await;
        }
        let limit = clock::now() + self.config.shutdown.flush_timeout;
        let is_busy =
            || !(self.node.connections.is_empty() && self.node.writer.is_idle() && self.node.steward.is_idle());
        while clock::now() < limit && is_busy() {
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
        // What is still owed to `mqtt.retained` its keepers find, as after a death.
        self.node.fanout.close();
        while clock::now() < limit && !self.node.fanout.has_ended() {
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
        if !self.flush(limit).await {
            tracing::warn!("some appends had no outcome yet; their clients were not told that they are safe");
            return;
        }
        if self.node.router.is_in_doubt() {
            tracing::info!("an append of unknown fate may still land: the others will fence this node");
            return;
        }
        // Nothing of this node is on its way any more: nobody needs to fence it.
        self.node.steward.leave();
        tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        self.flush(limit).await;
    }

    async fn flush(&self, limit: Instant) -> bool {
        self.journal.flush(limit.saturating_duration_since(clock::now())).await
    }
}

fn topic_counters(config: &Config, metrics: &Metrics) -> Result<Vec<TopicMetrics>, StartError> {
    let counters = config.mapping.compiled.kafka_topics().iter().map(|name| metrics.topic(name));
    counters.collect::<Result<_, _>>().map_err(|error| StartError::Metrics(error.to_string()))
}

/// Has what the Kafka journal counts copied into the metrics at each scrape.
fn export_stats(config: &Config, metrics: &Metrics, stats: Arc<JournalStats>) -> Result<(), StartError> {
    let counters = topic_counters(config, metrics)?;
    metrics.on_scrape(move |metrics| {
        let now = clock::now();
        let mut longest = Duration::ZERO;
        for (index, (counters, stats_of)) in counters.iter().zip(&stats.topics).enumerate() {
            let partitions = stats.partitions(index, now);
            longest = partitions.iter().filter_map(|partition| partition.silent_for).fold(longest, Duration::max);
            let unstable: u64 = partitions.iter().map(|partition| partition.unstable_records).sum();
            counters.uncommitted_records.set(i64::try_from(unstable).unwrap_or(i64::MAX));
            catch_up(&counters.retried, stats_of.batches_retried.load(Ordering::Relaxed));
            catch_up(&counters.bytes, stats_of.bytes_sent.load(Ordering::Relaxed));
        }
        metrics.tail_silence_seconds.set(longest.as_secs_f64());
    });
    Ok(())
}

/// Brings a counter to a count that is kept elsewhere.
fn catch_up(counter: &IntCounter, count: u64) {
    counter.inc_by(count.saturating_sub(counter.get()));
}

/// What is cheaper to ask the journal for than to keep.
fn watch_journal(metrics: &Arc<Metrics>, readiness: &Readiness, journal: &SharedJournal) {
    let asked = Arc::clone(journal);
    readiness.watch_kafka(move || asked.health().silent_for);
    let asked = Arc::clone(journal);
    metrics.on_scrape(move |metrics| {
        let health = asked.health();
        metrics.journal_pending_bytes.set(i64::try_from(health.pending_bytes).unwrap_or(i64::MAX));
        metrics.kafka_up.set(i64::from(health.silent_for.is_some_and(|silence| silence < KAFKA_SILENT)));
        metrics.kafka_silence_seconds.set(health.silent_for.map_or(0.0, |silence| silence.as_secs_f64()));
    });
}

/// The journal, with what it counts.
struct Opened {
    journal: SharedJournal,
    stats: Option<Arc<JournalStats>>,
}

async fn open_journal(
    config: &Config,
    sink: Arc<dyn AckSink>,
    shared: Option<&SharedLog>,
) -> Result<Opened, StartError> {
    match (&config.journal, shared) {
        (JournalChoice::Memory, shared) => {
            let own = shared.is_none().then(|| SharedLog::new(FaultPlan::default(), memory::Limits::default()));
            let Some(log) = shared.or(own.as_ref()) else { return Err(JournalError::Closed.into()) };
            let journal: SharedJournal = Arc::new(MemoryJournal::open(log, topic_names(config), sink));
            topics::create_missing(&*journal, topics::plan(&*journal, topics::wanted(config)).await?).await?;
            Ok(Opened { journal, stats: None })
        }
        (JournalChoice::Kafka(kafka), _) => {
            prepare_topics(config, kafka).await?;
            let journal = KafkaJournal::open(kafka_options(config, kafka), topic_names(config), sink).await?;
            let stats = Some(Arc::clone(journal.stats()));
            Ok(Opened { journal: Arc::new(journal), stats })
        }
    }
}

/// Looks at the kafka topics, creates what is missing if so configured, refuses what would not work.
async fn prepare_topics(config: &Config, kafka: &Kafka) -> Result<(), StartError> {
    let admin = open_admin(config, kafka).await?;
    let plan = topics::prepare(&*admin, config).await?;
    if plan.is_fatal() {
        return Err(StartError::Topics(plan.to_string()));
    }
    Ok(())
}

/// A journal that only looks at and creates kafka topics.
///
/// # Errors
/// Kafka does not answer.
pub async fn open_admin(config: &Config, kafka: &Kafka) -> Result<SharedJournal, JournalError> {
    Ok(Arc::new(KafkaJournal::open(kafka_options(config, kafka), Vec::new(), Arc::new(NoAcks)).await?))
}

fn kafka_options(config: &Config, kafka: &Kafka) -> KafkaOptions {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    KafkaOptions {
        client_id: format!("millrace-{}", config.node_id),
        request_timeout_ms: ms(kafka.request_timeout),
        delivery_timeout_ms: ms(kafka.append_deadline),
        append_bytes_max: kafka.append_budget_bytes,
        batch_bytes_max: kafka.batch_bytes_max,
        linger_ms: ms(kafka.linger_max),
        fetch_wait_ms: u32::try_from(kafka.fetch_wait.as_millis()).unwrap_or(u32::MAX),
        fetch_bytes_max: small(kafka.fetch_bytes_max),
        fetch_partition_bytes_max: small(kafka.fetch_partition_bytes_max),
        metadata_refresh_ms: ms(kafka.metadata_refresh),
        ..KafkaOptions::new(kafka.bootstrap.clone())
    }
}

/// For a journal that appends nothing.
struct NoAcks;

impl AckSink for NoAcks {
    fn on_acks(&self, _group: &crate::journal::AckGroup<'_>) {}
    fn flush(&self) {}
}
