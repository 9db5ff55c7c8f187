//! The actors of a node, wired together.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use super::Ground;
use crate::clock;
use crate::config::{Config, Limits};
use crate::journal::{Isolation, SharedJournal, TopicIndex};
use crate::ledger::ids::Incarnation;
use crate::ledger::rules::Rules;
use crate::node::Node;
use crate::node::connections::Connections;
use crate::node::fanout::{self, FanoutHandle};
use crate::node::mailbox::MailboxLimits;
use crate::node::registry::Registry;
use crate::node::retains::Retains;
use crate::node::steward::{self, StewardHandle};
use crate::node::writer::{self, AckRouter, Writer};
use crate::ops::metrics::Metrics;
use crate::ops::shutdown::Shutdown;
use crate::route::mapping::Mapping;
use crate::session::Settings;

/// SUBSCRIBE and UNSUBSCRIBE packets of one client that may wait for their answer.
const SUBSCRIBE_PACKETS_MAX: usize = 16;
/// Bytes of the log's end that a node keeps in memory for subscribers that lag.
const RECENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time between two watermarks of a node.
const WATERMARK_INTERVAL_MS: u64 = 5_000;

/// What the actors of a node are made of.
pub(super) struct Actors<'a> {
    pub(super) config: &'a Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Arc<Connections>,
    pub(super) retains: Arc<Retains>,
    pub(super) router: Arc<AckRouter>,
    pub(super) journal: SharedJournal,
}

impl Actors<'_> {
    /// Starts them and waits until the state logs were replayed.
    pub(super) async fn start(
        self,
        ground: &Ground<'_>,
        shutdown: &Shutdown,
        random: &mut StdRng,
    ) -> (Arc<Node>, Arc<OnceLock<&'static str>>) {
        let suspended = Arc::new(AtomicBool::new(true));
        let token_tick = Arc::new(AtomicU32::new(0));
        let writer = Arc::new(Writer::new(
            Arc::clone(&self.journal),
            self.mapping(),
            Arc::clone(&self.metrics),
            Arc::clone(&self.retains),
            Arc::clone(&suspended),
            self.config.limits.qos0_buffer_bytes_max,
        ));
        writer::start(Arc::clone(&writer));
        let prepared = steward::Prepared::default();
        let steward = prepared.handle();
        let incarnation = Incarnation(random.random());
        let (retained_ready, is_retained_ready) = oneshot::channel();
        let fanout = self.start_fanout(&steward, ground, incarnation, random.random(), retained_ready);
        self.router.set_others(steward.clone(), fanout.clone());
        fanout.begin();
        let over = Arc::new(OnceLock::new());
        let (ready, is_ready) = oneshot::channel();
        let state = StateTopics::after(&self.mapping());
        prepared.start(steward::Options {
            writer: Arc::clone(&writer),
            router: Arc::clone(&self.router),
            mapping: self.mapping(),
            sessions: state.sessions,
            cluster: state.cluster,
            topics: state.cluster.0 + 1,
            limits: steward::Limits::default(),
            rules: ground.rules,
            identity: steward::Identity {
                incarnation,
                node_id: self.config.node_id.clone(),
                producer_id: self.journal.producer_id(),
                started_ms: clock::wall_ms(),
            },
            seed: random.random(),
            suspended,
            token_tick: Arc::clone(&token_tick),
            on_exit: on_exit(&over, shutdown),
            on_ready: Some(ready),
            journal: Arc::clone(&self.journal),
        });
        // A steward that is gone will not be ready either; its end stops the node.
        let _ = is_ready.await;
        tokio::select! {
            biased;
            () = shutdown.stopped() => {}
            _ = is_retained_ready => {}
        }
        (Arc::new(self.node(writer, steward, fanout, token_tick, ground.rules)), over)
    }

    fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.config.mapping.compiled)
    }

    fn start_fanout(
        &self,
        steward: &StewardHandle,
        ground: &Ground<'_>,
        incarnation: Incarnation,
        trie_seed: u64,
        on_ready: oneshot::Sender<()>,
    ) -> FanoutHandle {
        let state = StateTopics::after(&self.mapping());
        fanout::start(fanout::Options {
            journal: Arc::clone(&self.journal),
            mapping: self.mapping(),
            metrics: Arc::clone(&self.metrics),
            isolation: Isolation::ReadCommitted,
            trie_seed,
            reports: Arc::new(steward.clone()),
            recent_bytes_max: RECENT_BYTES_MAX,
            watermark_interval_ms: WATERMARK_INTERVAL_MS,
            rules: ground.rules,
            retained: Some(fanout::RetainedOptions {
                retains: Arc::clone(&self.retains),
                retained: state.retained,
                cluster: state.cluster,
                incarnation,
                on_ready: Some(on_ready),
            }),
        })
    }

    fn node(
        self,
        writer: Arc<Writer>,
        steward: StewardHandle,
        fanout: FanoutHandle,
        token_tick: Arc<AtomicU32>,
        rules: Rules,
    ) -> Node {
        let limits = &self.config.limits;
        Node {
            settings: Arc::new(settings(limits, self.config.topics.messages.retention, rules)),
            mailbox_limits: MailboxLimits {
                deliveries_max: usize::try_from(limits.queue_packets_max).unwrap_or(usize::MAX),
                delivery_bytes_max: limits.queue_bytes_max,
            },
            write_stall_ms_max: u64::try_from(limits.slow_timeout.as_millis()).unwrap_or(u64::MAX),
            connections: self.connections,
            registry: Registry::default(),
            router: self.router,
            steward,
            token_tick,
            writer,
            fanout,
            metrics: self.metrics,
        }
    }
}

/// An incarnation that is over ends at once: it may not even say goodbye to its clients' sessions.
fn on_exit(over: &Arc<OnceLock<&'static str>>, shutdown: &Shutdown) -> Box<dyn Fn(&'static str) + Send> {
    let (over, shutdown) = (Arc::clone(over), shutdown.clone());
    Box::new(move |why| {
        tracing::error!(why, "this node is over and its process ends; another one may be started at once");
        // Only the first reason counts.
        let _ = over.set(why);
        shutdown.stop();
    })
}

/// Where the kafka topics of state are among those of the journal: behind those of the mapping.
#[derive(Clone, Copy, Debug)]
struct StateTopics {
    retained: TopicIndex,
    sessions: TopicIndex,
    cluster: TopicIndex,
}

impl StateTopics {
    fn after(mapping: &Mapping) -> Self {
        let first = u16::try_from(mapping.kafka_topics().len()).unwrap_or(u16::MAX);
        let nth = |n| TopicIndex(first.saturating_add(n));
        Self { retained: nth(0), sessions: nth(1), cluster: nth(2) }
    }
}

/// A session must not outlive the messages that it waits for: a seventh of their retention is kept as a margin, a day at
/// most (DESIGN "Limits").
fn session_expiry_s_max(retention: Duration) -> u32 {
    let margin = (retention / 7).min(Duration::from_hours(24));
    u32::try_from(retention.saturating_sub(margin).as_secs()).unwrap_or(u32::MAX)
}

fn settings(limits: &Limits, retention: Duration, rules: Rules) -> Settings {
    let receive_maximum = std::num::NonZeroU16::new(limits.receive_maximum).unwrap_or(std::num::NonZeroU16::MIN);
    Settings {
        connect_timeout_ms: u64::try_from(limits.connect_timeout.as_millis()).unwrap_or(u64::MAX),
        session_expiry_s_max: session_expiry_s_max(retention),
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
        rules,
        ..Settings::default()
    }
}
