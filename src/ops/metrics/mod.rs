//! Every metric of the broker, resolved beforehand: counting is an atomic add, never a look-up by label.
//!
//! The only user of the `prometheus` crate. The comment on a field is the metric's help text. Values that are cheaper to
//! ask for than to keep are set by a hook at each scrape ([`Metrics::on_scrape`]).

mod label;
mod process;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use label::{CloseCause, Counters, DropReason, Label, PacketType, QosLabel, RefuseReason};

pub use prometheus::IntCounter;

use super::tasks;

/// A hook that sets values before they are read.
type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Declares [`Metrics`]: each field with its type and its name in Prometheus.
macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $type:ty = $name:literal,)+) => {
        /// All metrics of one process. Share it as `Arc<Metrics>`.
        pub struct Metrics {
            registry: Registry,
            hooks: Mutex<Vec<Hook>>,
            topics: TopicFamilies,
            $(#[doc = $help] pub $field: $type,)+
        }

        impl Metrics {
            /// Registers everything; `node_id` becomes a label of `millrace_build_info`.
            ///
            /// # Errors
            /// Two metrics have one name, which is a defect that every test finds.
            pub fn new(node_id: &str) -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                build_info(&registry, node_id)?;
                Ok(Self {
                    hooks: Mutex::default(),
                    topics: TopicFamilies::new(&registry)?,
                    $($field: <$type as Metric>::register(&registry, $name, $help.trim())?,)+
                    registry,
                })
            }
        }
    };
}

metrics! {
    /// Client connections being served.
    connections_open: IntGauge = "millrace_connections_open",
    /// Client sockets accepted.
    connections_accepted: IntCounter = "millrace_connections_accepted_total",
    /// Connections that ended before a CONNACK accepted them, by reason.
    connections_refused: Counters<RefuseReason> = "millrace_connections_refused_total",
    /// Connections that a CONNACK had accepted and that ended, by cause.
    connections_closed: Counters<CloseCause> = "millrace_connections_closed_total",
    /// Sessions taken over by a newer connection of the same client id.
    takeovers: IntCounter = "millrace_takeovers_total",
    /// QoS 1 publishes that were appended although an earlier connection's might still land behind them.
    late_append_risk: IntCounter = "millrace_late_append_risk_total",

    /// MQTT packets from clients, by type.
    packets_received: Counters<PacketType> = "millrace_packets_received_total",
    /// MQTT packets to clients, by type.
    packets_sent: Counters<PacketType> = "millrace_packets_sent_total",
    /// Bytes from clients.
    bytes_received: IntCounter = "millrace_received_bytes_total",
    /// Bytes to clients.
    bytes_sent: IntCounter = "millrace_sent_bytes_total",
    /// Packets that could not be decoded or broke the protocol.
    malformed_packets: IntCounter = "millrace_malformed_packets_total",

    /// Messages from clients, by QoS.
    publishes_received: Counters<QosLabel> = "millrace_publishes_received_total",
    /// Messages to clients, by the QoS they travel with.
    publishes_delivered: Counters<QosLabel> = "millrace_publishes_delivered_total",
    /// Messages not delivered to a client, or not taken from one, by reason.
    publishes_dropped: Counters<DropReason> = "millrace_publishes_dropped_total",

    /// Subscriptions of this node's sessions.
    subscriptions: IntGauge = "millrace_subscriptions",

    /// Bytes of appends taken and not yet decided.
    journal_pending_bytes: IntGauge = "millrace_journal_pending_bytes",
    /// 1 while Kafka answers, else 0.
    kafka_up: IntGauge = "millrace_kafka_up",
    /// Seconds since Kafka last answered.
    kafka_silence_seconds: Gauge = "millrace_kafka_silence_seconds",
    /// Times that a publisher's socket was not read because the append budget was full.
    backpressure: IntCounter = "millrace_backpressure_total",

    /// Record batches read from followed partitions.
    tail_batches: IntCounter = "millrace_tail_batches_total",
    /// Records in the batches read.
    tail_records_read: IntCounter = "millrace_tail_records_read_total",
    /// Records read that at least one client of this node subscribed to.
    tail_records_wanted: IntCounter = "millrace_tail_records_wanted_total",
    /// Longest time since a followed partition was last fetched successfully, in seconds.
    tail_silence_seconds: Gauge = "millrace_tail_silence_seconds",
    /// Times that a followed partition lost its place: retention, recreated, rewound.
    tail_gaps: IntCounter = "millrace_tail_gaps_total",
    /// Records that were gone before a subscriber could read them.
    records_lost: IntCounter = "millrace_records_lost_total",
    /// Subscribers that could not keep up and are reading from Kafka what they missed.
    lagging: IntGauge = "millrace_lagging_subscribers",
    /// Reads from Kafka for subscribers that lag; all that lag in a partition share them.
    catch_up_reads: IntCounter = "millrace_catch_up_reads_total",
    /// Reads from memory for subscribers that lag.
    catch_up_reads_from_memory: IntCounter = "millrace_catch_up_reads_from_memory_total",
    /// Topics in mqtt.retained that are remembered, cleared ones included.
    retained_topics: IntGauge = "millrace_retained_topics",
    /// Records of mqtt.retained that mean nothing: no topic for a key, or in another partition than their key's.
    retained_ignored: IntCounter = "millrace_retained_ignored_total",
    /// Retain-flagged messages that Kafka does not take into mqtt.retained.
    retained_refused: IntCounter = "millrace_retained_refused_total",
    /// New subscriptions that did not wait any longer for retained records written late.
    retained_windows_given_up: IntCounter = "millrace_retained_windows_given_up_total",
    /// Watermarks handed on to be written.
    watermarks: IntCounter = "millrace_watermarks_total",
    /// Headers of foreign records that no MQTT property can carry.
    headers_ignored: IntCounter = "millrace_record_headers_ignored_total",
    /// Kafka topics found to be written with another partitioner than murmur2.
    foreign_partitioner: IntCounter = "millrace_foreign_partitioner_total",

    /// Tasks that panicked; each is a defect of Millrace.
    task_panics: IntCounter = "millrace_task_panics_total",
    /// Memory in use, bytes.
    resident_bytes: IntGauge = "process_resident_memory_bytes",
    /// User and system CPU time of this process, seconds.
    cpu_seconds: Counter = "process_cpu_seconds_total",
    /// Open file descriptors.
    open_fds: IntGauge = "process_open_fds",
    /// File descriptors that may be open.
    max_fds: IntGauge = "process_max_fds",
    /// Threads.
    threads: IntGauge = "process_threads",
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one kafka topic. Clones count into the same series.
#[derive(Clone, Debug)]
pub struct TopicMetrics {
    /// Records acknowledged by all in-sync replicas.
    pub written: IntCounter,
    /// Records that are certainly not in the log.
    pub refused: IntCounter,
    /// Records whose fate nobody knows.
    pub unknown: IntCounter,
    /// Records sent again.
    pub retried: IntCounter,
    /// Bytes of acknowledged records, as handed to the journal.
    pub bytes: IntCounter,
    /// High watermark − last stable offset, summed over the partitions: records held back by open transactions.
    pub uncommitted_records: IntGauge,
}

struct TopicFamilies {
    appends: IntCounterVec,
    bytes: IntCounterVec,
    uncommitted: IntGaugeVec,
}

impl Metrics {
    /// The metrics of one kafka topic, all at 0. Ask once and keep it; asking again gives the same series.
    ///
    /// # Errors
    /// Never for a legal name of a kafka topic.
    pub fn topic(&self, kafka_topic: &str) -> Result<TopicMetrics, prometheus::Error> {
        let appends = |outcome| self.topics.appends.get_metric_with_label_values(&[kafka_topic, outcome]);
        Ok(TopicMetrics {
            written: appends("written")?,
            refused: appends("refused")?,
            unknown: appends("unknown")?,
            retried: appends("retried")?,
            bytes: self.topics.bytes.get_metric_with_label_values(&[kafka_topic])?,
            uncommitted_records: self.topics.uncommitted.get_metric_with_label_values(&[kafka_topic])?,
        })
    }

    /// Has `hook` called before each scrape, to set what is cheaper to ask for than to keep. It must not block.
    pub fn on_scrape(&self, hook: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// Everything in Prometheus's text format.
    ///
    /// # Errors
    /// The encoder's, which no registered metric causes.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        {
            // Held for the update, too: two scrapes at once must not count the same processor time twice.
            let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            for hook in hooks.iter() {
                hook(self);
            }
            self.update_process();
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn update_process(&self) {
        let now = process::read();
        self.resident_bytes.set(now.resident_bytes);
        self.open_fds.set(now.open_fds);
        self.max_fds.set(now.max_fds);
        self.threads.set(now.threads);
        self.cpu_seconds.inc_by((now.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.task_panics.inc_by(tasks::panics().saturating_sub(self.task_panics.get()));
    }
}

impl TopicFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let appends = Opts::new(
            "millrace_appends_total",
            "Records appended, by kafka topic and outcome; `unknown` may or may not be in the log, `retried` counts resends",
        );
        let bytes = Opts::new("millrace_append_bytes_total", "Bytes of records written, by kafka topic");
        let uncommitted = Opts::new(
            "millrace_uncommitted_records",
            "High watermark minus last stable offset: records held back by open transactions, by kafka topic",
        );
        Ok(Self {
            appends: registered(registry, IntCounterVec::new(appends, &["topic", "outcome"])?)?,
            bytes: registered(registry, IntCounterVec::new(bytes, &["topic"])?)?,
            uncommitted: registered(registry, IntGaugeVec::new(uncommitted, &["topic"])?)?,
        })
    }
}

/// A type of metric that can be made from a name and a help text.
trait Metric: Sized {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error>;
}

impl Metric for IntCounter {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        registered(registry, Self::new(name, help)?)
    }
}

impl Metric for Counter {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        registered(registry, Self::new(name, help)?)
    }
}

impl Metric for IntGauge {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        registered(registry, Self::new(name, help)?)
    }
}

impl Metric for Gauge {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        registered(registry, Self::new(name, help)?)
    }
}

impl<L: Label> Metric for Counters<L> {
    fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, prometheus::Error> {
        Self::new(registry, name, help)
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn build_info(registry: &Registry, node_id: &str) -> Result<(), prometheus::Error> {
    let options = Opts::new("millrace_build_info", "Always 1; the labels say what is running");
    let family = registered(registry, GaugeVec::new(options, &["version", "node"])?)?;
    family.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), node_id])?.set(1.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mqtt::QoS;

    fn rendered(metrics: &Metrics) -> String {
        metrics.render().unwrap()
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = rendered(&Metrics::new("n1").unwrap());
        for line in [
            "millrace_connections_refused_total{reason=\"too_many\"} 0",
            "millrace_connections_closed_total{cause=\"keep_alive\"} 0",
            "millrace_packets_received_total{type=\"connect\"} 0",
            "millrace_publishes_delivered_total{qos=\"2\"} 0",
            "millrace_publishes_dropped_total{why=\"queue_full\"} 0",
            "millrace_task_panics_total ",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("node=\"n1\""));
    }

    #[test]
    fn counts_arrive_under_their_label() {
        let metrics = Metrics::new("n1").unwrap();
        metrics.packets_sent.inc(PacketType::of(0x40));
        metrics.publishes_received.add(QoS::AtLeastOnce.into(), 3);
        metrics.connections_closed.inc(CloseCause::Internal);
        metrics.topic("mqtt.messages").unwrap().written.inc_by(5);
        metrics.topic("mqtt.messages").unwrap().written.inc();
        assert_eq!(metrics.publishes_received.count(QosLabel::of(1)), 3);
        let text = rendered(&metrics);
        for line in [
            "millrace_packets_sent_total{type=\"puback\"} 1",
            "millrace_publishes_received_total{qos=\"1\"} 3",
            "millrace_connections_closed_total{cause=\"internal\"} 1",
            "millrace_appends_total{outcome=\"written\",topic=\"mqtt.messages\"} 6",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn hooks_set_values_at_each_scrape() {
        let metrics = Arc::new(Metrics::new("n1").unwrap());
        metrics.on_scrape(|metrics| metrics.journal_pending_bytes.inc());
        assert!(rendered(&metrics).contains("millrace_journal_pending_bytes 1"));
        assert!(rendered(&metrics).contains("millrace_journal_pending_bytes 2"));
    }

    #[test]
    fn processor_time_never_runs_backwards() {
        let metrics = Metrics::new("n1").unwrap();
        let read = || {
            let text = rendered(&metrics);
            let line = text.lines().find(|line| line.starts_with("process_cpu_seconds_total")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let first = read();
        assert!(read() >= first);
    }
}
