//! Layer 6, the composition root: builds every actor, wires them, drains them when the process is to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock;
use crate::config::{Config, JournalChoice, Kafka, Limits};
use crate::journal::memory::{self, FaultPlan, MemoryJournal, SharedLog};
use crate::journal::{AckSink, Isolation, JournalError, SharedJournal};
use crate::net::listener::Listener;
use crate::node::Node;
use crate::node::connections::Connections;
use crate::node::fanout;
use crate::node::mailbox::{MailboxLimits, Notice};
use crate::node::registry::Registry;
use crate::node::writer::{self, AckRouter, Writer};
use crate::ops::admin::{self, Readiness};
use crate::ops::metrics::{Metrics, TopicMetrics};
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks;
use crate::session::Settings;
use crate::topics;

/// Bytes of QoS 0 publishes that wait while Kafka takes none.
const QOS0_RING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often the drain looks whether it is done.
const DRAIN_LOOK_MS: u64 = 20;
/// SUBSCRIBE and UNSUBSCRIBE packets of one client that may wait for their answer.
const SUBSCRIBE_PACKETS_MAX: usize = 16;

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

/// A node that serves.
pub struct Server {
    /// Where MQTT clients connect.
    pub mqtt: Vec<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub ops: SocketAddr,
    node: Arc<Node>,
    journal: SharedJournal,
    readiness: Arc<Readiness>,
    shutdown: Shutdown,
    /// Draining it ends the listeners, which outlive the beginning of the process's own drain.
    accepting: Shutdown,
    config: Config,
}

/// Starts a node: journal, kafka topics checked (and created if so configured), actors, listeners. It is ready when this
/// returns.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Server, StartError> {
    start_on(config, shutdown, None).await
}

/// [`start`] on a memory journal that several nodes share.
///
/// # Errors
/// As [`start`].
pub async fn start_on(config: Config, shutdown: Shutdown, shared: Option<&SharedLog>) -> Result<Server, StartError> {
    let metrics = Arc::new(Metrics::new(&config.node_id).map_err(|error| StartError::Metrics(error.to_string()))?);
    let connections = Arc::new(Connections::new(usize::try_from(config.limits.connections_max).unwrap_or(usize::MAX)));
    let router = Arc::new(AckRouter::new(Arc::clone(&connections), topic_counters(&config, &metrics)?));
    let sink: Arc<dyn AckSink> = Arc::clone(&router) as Arc<dyn AckSink>;
    let journal = open_journal(&config, sink, shared).await?;
    let mapping = Arc::clone(&config.mapping.compiled);
    let writer =
        Arc::new(Writer::new(Arc::clone(&journal), Arc::clone(&mapping), Arc::clone(&metrics), QOS0_RING_BYTES_MAX));
    router.set_writer(&writer);
    writer::start(Arc::clone(&writer));
    let fanout = fanout::start(fanout::Options {
        journal: Arc::clone(&journal),
        mapping,
        metrics: Arc::clone(&metrics),
        isolation: Isolation::ReadCommitted,
    });
    let node = Arc::new(Node {
        settings: Arc::new(settings(&config.limits)),
        mailbox_limits: MailboxLimits {
            deliveries_max: usize::try_from(config.limits.queue_packets_max).unwrap_or(usize::MAX),
            delivery_bytes_max: config.limits.queue_bytes_max,
        },
        write_stall_ms_max: u64::try_from(config.limits.slow_timeout.as_millis()).unwrap_or(u64::MAX),
        connections,
        registry: Registry::default(),
        writer,
        fanout,
        metrics,
    });
    listen(config, node, journal, shutdown).await
}

async fn listen(
    config: Config,
    node: Arc<Node>,
    journal: SharedJournal,
    shutdown: Shutdown,
) -> Result<Server, StartError> {
    let readiness = Arc::new(Readiness::new(config.ops.kafka_grace));
    watch_journal(&node.metrics, &readiness, &journal);
    let ops = TcpListener::bind(config.ops.address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("ops.address: cannot listen on {}: {error}", config.ops.address))
    })?;
    let ops_address = ops.local_addr()?;
    let accepting = Shutdown::new();
    let mut mqtt = Vec::new();
    let mut listeners = Vec::new();
    for &address in &config.listen.mqtt {
        let listener = Listener::bind(address, Arc::clone(&node), rand::make_rng())?;
        mqtt.push(listener.local_address()?);
        listeners.push(listener);
    }
    for listener in listeners {
        tasks::spawn("listener", listener.run(accepting.clone()));
    }
    tasks::spawn("ops", admin::serve(ops, Arc::clone(&node.metrics), Arc::clone(&readiness), shutdown.clone()));
    readiness.set_ready();
    tracing::info!(node = config.node_id, ?mqtt, ops = %ops_address, "ready");
    Ok(Server { mqtt, ops: ops_address, node, journal, readiness, shutdown, accepting, config })
}

impl Server {
    /// Serves until the shutdown is stopped, or drained to its end.
    pub async fn run(self) {
        self.shutdown.draining().await;
        self.readiness.set_draining();
        tokio::select! {
            () = self.drain() => {}
            () = self.shutdown.stopped() => {}
        }
        self.accepting.drain();
        self.node.fanout.close();
        self.shutdown.stop();
        tracing::info!("ended");
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
        while clock::now() < limit && !(self.node.connections.is_empty() && self.node.writer.is_idle()) {
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
        let left = limit.saturating_duration_since(clock::now());
        if !self.journal.flush(left).await {
            tracing::warn!("some appends had no outcome yet; their clients were not told that they are safe");
        }
    }
}

fn topic_counters(config: &Config, metrics: &Metrics) -> Result<Vec<TopicMetrics>, StartError> {
    let counters = config.mapping.compiled.kafka_topics().iter().map(|name| metrics.topic(name));
    counters.collect::<Result<_, _>>().map_err(|error| StartError::Metrics(error.to_string()))
}

/// What is cheaper to ask the journal for than to keep.
fn watch_journal(metrics: &Arc<Metrics>, readiness: &Readiness, journal: &SharedJournal) {
    let asked = Arc::clone(journal);
    readiness.watch_kafka(move || asked.health().silent_for);
    let asked = Arc::clone(journal);
    metrics.on_scrape(move |metrics| {
        let health = asked.health();
        metrics.journal_pending_bytes.set(i64::try_from(health.pending_bytes).unwrap_or(i64::MAX));
        metrics.kafka_silence_seconds.set(health.silent_for.map_or(0.0, |silence| silence.as_secs_f64()));
    });
}

async fn open_journal(
    config: &Config,
    sink: Arc<dyn AckSink>,
    shared: Option<&SharedLog>,
) -> Result<SharedJournal, StartError> {
    match (&config.journal, shared) {
        (JournalChoice::Memory, shared) => {
            let own = shared.is_none().then(|| SharedLog::new(FaultPlan::default(), memory::Limits::default()));
            let Some(log) = shared.or(own.as_ref()) else { return Err(JournalError::Closed.into()) };
            let names = config.mapping.compiled.kafka_topics().to_vec();
            let journal: SharedJournal = Arc::new(MemoryJournal::open(log, names, sink));
            topics::create_missing(&*journal, topics::plan(&*journal, topics::wanted(config)).await?).await?;
            Ok(journal)
        }
        (JournalChoice::Kafka(_), _) => Err(JournalError::Closed.into()),
    }
}

/// For a journal that appends nothing.
struct NoAcks;

impl AckSink for NoAcks {
    fn on_acks(&self, _group: &crate::journal::AckGroup<'_>) {}
    fn flush(&self) {}
}

fn settings(limits: &Limits) -> Settings {
    let receive_maximum = std::num::NonZeroU16::new(limits.receive_maximum).unwrap_or(std::num::NonZeroU16::MIN);
    Settings {
        connect_timeout_ms: u64::try_from(limits.connect_timeout.as_millis()).unwrap_or(u64::MAX),
        connect_bytes_max: limits.connect_bytes_max,
        packet_bytes_max: limits.packet_bytes_max,
        client_id_bytes_max: limits.client_id_bytes_max,
        topic_bytes_max: limits.topic_bytes_max,
        topic_levels_max: usize::from(limits.topic_levels_max),
        user_properties_max: usize::from(limits.user_properties_max),
        receive_maximum,
        topic_alias_maximum: limits.topic_alias_maximum,
        subscriptions_max: usize::try_from(limits.subscriptions_max).unwrap_or(usize::MAX),
        subscribe_packets_max: SUBSCRIBE_PACKETS_MAX,
        keep_alive_s_max: u16::try_from(limits.keep_alive_max.as_secs()).unwrap_or(u16::MAX),
        deliver_window_max: receive_maximum.get(),
    }
}
