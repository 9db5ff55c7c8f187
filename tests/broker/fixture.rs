//! Nodes for tests: in this process, on ports nobody chose, on a memory journal or a real Kafka.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millrace::config::{self, Config, Flag, Preset, Sources};
use millrace::journal::memory::{FaultPlan, Limits, SharedLog};
use millrace::ops::shutdown::Shutdown;
use millrace::ops::tasks;
use millrace::server::Ground;
use millrace::{clock, server};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Where a Kafka for tests is.
const KAFKA_VARIABLE: &str = "MILLRACE_TEST_KAFKA";
/// A node that has not started or ended by then never will.
const NODE_LIMIT: Duration = Duration::from_mins(1);

/// Makes two tests of each function: on memory and on Kafka. A function that is not listed is an unused one, so none is
/// forgotten.
macro_rules! on_both_journals {
    ($($test:ident),+ $(,)?) => {
        mod on_memory {
            $(#[test] fn $test() { crate::fixture::on_memory(concat!(module_path!(), "::", stringify!($test)), super::$test); })+
        }
        on_kafka! { $($test),+ }
    };
}

/// Makes a test of each function, on Kafka.
macro_rules! on_kafka {
    ($($test:ident),+ $(,)?) => {
        mod on_kafka {
            $(#[test] fn $test() { crate::fixture::on_kafka(concat!(module_path!(), "::", stringify!($test)), super::$test); })+
        }
    };
}

/// Runs a test on a memory journal of its own.
pub(crate) fn on_memory(test: &str, body: fn(&Place)) {
    body(&Place::new(test, Journal::Memory(SharedLog::new(FaultPlan::default(), Limits::default()))));
}

/// Runs a test on Kafka, under names of kafka topics that no other test uses.
pub(crate) fn on_kafka(test: &str, body: fn(&Place)) {
    match std::env::var(KAFKA_VARIABLE) {
        Ok(bootstrap) if !bootstrap.is_empty() => body(&Place::new(test, Journal::Kafka(bootstrap))),
        Ok(_) | Err(_) => skip(test, &format!("{KAFKA_VARIABLE} names no Kafka; `make test` starts one")),
    }
}

/// Says that a test did not run, past the test harness, which keeps the output of tests that pass to itself.
pub(crate) fn skip(test: &str, why: &str) {
    // Without a stderr nobody can be told.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// What a node stands on.
pub(crate) enum Journal {
    /// Shared by all nodes of a test.
    Memory(SharedLog),
    /// Bootstrap addresses.
    Kafka(String),
}

/// Where the nodes of one test live: a journal, and names that are the test's own.
pub(crate) struct Place {
    pub(crate) journal: Journal,
    pub(crate) test: String,
    /// What the names of its kafka topics begin with.
    prefix: String,
}

impl Place {
    fn new(test: &str, journal: Journal) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("mrt-{}-{}-{number}", clock::wall_ms(), std::process::id());
        Self { journal, test: test.to_owned(), prefix }
    }

    /// The full name of one of this test's kafka topics.
    pub(crate) fn kafka_topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// The kafka topic of what no mapping rule matches.
    pub(crate) fn default_topic(&self) -> String {
        self.kafka_topic("messages")
    }

    /// A node with message topics of one partition.
    pub(crate) fn start(&self) -> TestNode {
        self.start_with(&[])
    }

    /// [`Place::start`] with other settings: configuration keys and values.
    pub(crate) fn start_with(&self, settings: &[(&str, &str)]) -> TestNode {
        TestNode::start(self, self.config(settings))
    }

    /// The settings that put a node here, as configuration keys and values.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("listen.mqtt", "127.0.0.1:0".to_owned()),
            ("ops.address", "127.0.0.1:0".to_owned()),
            ("topics.messages.partitions", "1".to_owned()),
            ("topics.retained.partitions", "1".to_owned()),
            ("topics.sessions.partitions", "1".to_owned()),
            ("mapping.default_topic", self.default_topic()),
            ("topics.retained.name", self.kafka_topic("retained")),
            ("topics.sessions.name", self.kafka_topic("sessions")),
            ("topics.cluster.name", self.kafka_topic("cluster")),
        ];
        if let Journal::Kafka(bootstrap) = &self.journal {
            settings.push(("journal.kind", "kafka".to_owned()));
            settings.push(("kafka.bootstrap", bootstrap.clone()));
        }
        settings
    }

    fn config(&self, settings: &[(&str, &str)]) -> Config {
        let given = settings.iter().map(|&(key, value)| (key, value.to_owned()));
        let flags = self
            .settings()
            .into_iter()
            .chain(given)
            .map(|(key, value)| Flag { flag: key.to_owned(), key: key.to_owned(), value })
            .collect();
        let sources = Sources { preset: Preset::Dev, flags, ..Sources::default() };
        match config::load(&sources) {
            Ok(loaded) => loaded.config,
            Err(errors) => panic!("{errors}"),
        }
    }
}

/// A node in this process; it ends with its value.
pub(crate) struct TestNode {
    /// Where MQTT clients connect.
    pub(crate) mqtt: SocketAddr,
    /// Where metrics and health are.
    pub(crate) ops: SocketAddr,
    shutdown: Shutdown,
    run: Option<JoinHandle<Result<(), millrace::server::RunError>>>,
    runtime: Option<Runtime>,
}

impl TestNode {
    fn start(place: &Place, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let shutdown = Shutdown::new();
        let log = match &place.journal {
            Journal::Memory(log) => Some(log),
            Journal::Kafka(_) => None,
        };
        let start = server::start_on(config, shutdown.clone(), Ground { log, ..Ground::default() });
        let started = runtime.block_on(async { tokio::time::timeout(NODE_LIMIT, start).await });
        let server = match started {
            Ok(Ok(server)) => server,
            Ok(Err(error)) => panic!("the node does not start: {error}"),
            Err(elapsed) => panic!("the node does not start within {NODE_LIMIT:?}: {elapsed}"),
        };
        let (mqtt, ops) = (server.mqtt[0], server.ops.unwrap());
        let run = runtime.spawn(server.run());
        Self { mqtt, ops, shutdown, run: Some(run), runtime: Some(runtime) }
    }

    /// Begins the drain, as SIGTERM does.
    pub(crate) fn drain(&self) {
        self.shutdown.drain();
    }

    /// Waits until the node has ended on its own.
    pub(crate) fn ended(mut self) {
        self.end();
    }

    /// Ends it as a killed process ends: whatever it was doing, and without a word to anybody.
    pub(crate) fn kill(mut self) {
        self.run = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(NODE_LIMIT);
        }
    }

    fn end(&mut self) {
        let (Some(runtime), Some(run)) = (self.runtime.take(), self.run.take()) else { return };
        let ended = runtime.block_on(async { tokio::time::timeout(NODE_LIMIT, run).await });
        runtime.shutdown_timeout(NODE_LIMIT);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
            assert_eq!(tasks::panics(), 0, "a task panicked, here or in another test of this process");
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.shutdown.stop();
        self.end();
    }
}
