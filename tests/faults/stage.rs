//! The frame of every run at the journal: load and tail, a fault in the middle, recovery, comparison.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{Isolation, Journal, Offset, TopicSpec};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::check::{Findings, compare, read_log, read_with_kcat};
use crate::cluster::{Cluster, Setup};
use crate::follow::Follower;
use crate::ledger::Ledger;
use crate::load::{Load, partition};
use crate::table::{Row, journal_columns};

pub const PARTITIONS: u32 = 6;
pub const TOPIC: &str = "faults";
/// Between the start of the load and the fault, at least; and after recovery.
const CALM: Duration = Duration::from_millis(1_500);
/// What has not come by then hangs. Longer than the time in which an append must be decided.
const HANGS: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(20);
/// Tails hear of Kafka twice a second.
const SILENT: Duration = Duration::from_secs(5);

/// A journal under load, with a tail.
pub struct Stage {
    pub cluster: Cluster,
    pub journal: Arc<KafkaJournal>,
    pub ledger: Arc<Ledger>,
    /// How many there are now.
    pub partitions: u32,
    /// When the present log began, if there was one before.
    pub life: Option<Instant>,
    /// Events that the tail must tell, by the beginnings of their names; others must not come.
    pub expected_events: &'static [&'static str],
    follower: Follower,
    load: Load,
}

/// How the kafka topic is made.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    pub partitions: u32,
    pub replication_factor: u16,
    pub configs: &'static [(&'static str, &'static str)],
}

impl Topic {
    fn spec(&self, name: &str) -> TopicSpec {
        TopicSpec {
            name: name.to_owned(),
            partitions: self.partitions,
            replication_factor: Some(self.replication_factor),
            configs: self.configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }
}

/// One copy.
pub const PLAIN: Topic = Topic { partitions: PARTITIONS, replication_factor: 1, configs: &[] };
/// Three copies, of which two must have a record.
pub const SAFE: Topic = Topic { replication_factor: 3, configs: &[("min.insync.replicas", "2")], ..PLAIN };

/// The fault is caused on this thread, where blocking does no harm: load, tail and journal have threads of their own.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A whole run, if runs are wanted: prints its row, fails if a promise was broken.
pub fn run(fault: &str, setup: Setup, topic: Topic, cause: impl AsyncFnOnce(&mut Stage)) {
    if crate::cluster::is_wanted(fault) {
        run_on(fault, Cluster::start(setup), topic, cause);
    }
}

/// [`run`] on a Kafka that is there.
pub fn run_on(fault: &str, cluster: Cluster, topic: Topic, cause: impl AsyncFnOnce(&mut Stage)) {
    log_if_wanted();
    runtime().block_on(async {
        let mut stage = Stage::open(cluster, topic).await;
        sleep(CALM).await;
        stage.wait_written(clock::now(), "before the fault").await;
        cause(&mut stage).await;
        let over = clock::now();
        stage.wait_written(over, "after the fault").await;
        let recovery = over.elapsed();
        sleep(CALM).await;
        let kafka = stage.cluster.version.clone();
        let silence = stage.ledger.longest_silence();
        let findings = stage.end().await;
        let result = journal_columns(&findings, silence, recovery);
        Row { fault: fault.to_owned(), kafka, result }.publish();
        assert!(findings.wrong.is_empty(), "{fault}: {:#?}", findings.wrong.iter().take(20).collect::<Vec<_>>());
    });
}

/// To stderr, what a filter like `millrace=debug` in `MILLRACE_FAULTS_LOG` lets through.
pub fn log_if_wanted() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("MILLRACE_FAULTS_LOG") {
        // Another run of this process may have begun already.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
}

impl Stage {
    async fn open(cluster: Cluster, topic: Topic) -> Self {
        let options = KafkaOptions::new(cluster.bootstrap.clone());
        create(&options, &topic).await;
        let ledger = Arc::new(Ledger::default());
        let journal = KafkaJournal::open(options, vec![TOPIC.to_owned()], Arc::clone(&ledger) as _).await.unwrap();
        let journal = Arc::new(journal);
        let follower = Follower::start(Arc::clone(&journal) as _, PARTITIONS);
        let load = Load::start(Arc::clone(&journal) as _, Arc::clone(&ledger), PARTITIONS);
        Self { cluster, journal, ledger, partitions: PARTITIONS, life: None, expected_events: &[], follower, load }
    }

    /// Waits until each partition has an append asked for after `since` and written.
    pub async fn wait_written(&self, since: Instant, when: &str) {
        wait(&format!("appends to be written {when}"), async || {
            self.ledger.written_since(since).len() == self.partitions as usize
        })
        .await;
    }

    /// Ends the load, waits for every outcome and for the tail, and compares.
    async fn end(self) -> Findings {
        let Self { cluster, journal, ledger, partitions, life, expected_events, follower, load } = self;
        load.stop().await;
        wait("every append to have an outcome", async || ledger.open() == 0).await;
        wait("the tail to reach the end", async || {
            let all: Vec<_> = (0..partitions).map(partition).collect();
            let Ok(ends) = journal.ends(&all).await else { return false };
            let ends: Vec<i64> = ends.iter().map(|ends| ends.last_stable.0).collect();
            follower.has_reached(&ends)
        })
        .await;
        let health = journal.health();
        let seen = follower.seen();
        let log = read_log(&cluster.bootstrap, TOPIC, partitions, &ledger).await;
        let mut findings = compare(&ledger.entries(), &log, &seen, life);
        if read_with_kcat(&cluster.bootstrap, TOPIC, partitions).is_some_and(|other| other != log) {
            findings.wrong.push("kcat reads another log".to_owned());
        }
        if health.fenced || health.silent_for.is_none_or(|silent| silent > SILENT) || health.pending_bytes > 0 {
            findings.wrong.push(format!("the journal is not well: {health:?}"));
        }
        let unexpected = |event: &&String| !expected_events.iter().any(|expected| event.starts_with(expected));
        for event in findings.tail_events.keys().filter(unexpected) {
            findings.wrong.push(format!("the tail told of {event}"));
        }
        for expected in expected_events {
            if !findings.tail_events.keys().any(|event| event.starts_with(expected)) {
                findings.wrong.push(format!("the tail did not tell of {expected}"));
            }
        }
        drop(cluster);
        findings
    }
}

/// Creates the kafka topic of a run and waits until its partitions have leaders.
pub async fn create(options: &KafkaOptions, topic: &Topic) {
    create_named(options, TOPIC, topic).await;
}

/// [`create`] under another name.
pub async fn create_named(options: &KafkaOptions, name: &str, topic: &Topic) {
    let admin = KafkaJournal::open(options.clone(), Vec::new(), Arc::new(Ledger::default())).await.unwrap();
    wait("the kafka topic to be created", async || admin.create(&[topic.spec(name)]).await.is_ok()).await;
    wait("the kafka topic to have leaders", async || {
        let topics = vec![name.to_owned()];
        let Ok(reader) = KafkaJournal::open(options.clone(), topics, Arc::new(Ledger::default())).await else {
            return false;
        };
        let reads = reader.read(partition(topic.partitions - 1), Offset(0), 1, Isolation::ReadUncommitted).await;
        reads.is_ok()
    })
    .await;
}

/// Waits for something that must come.
pub async fn wait(what: &str, has_come: impl AsyncFnMut() -> bool) {
    assert!(comes(has_come).await, "hangs: waited {HANGS:?} for {what}");
}

/// Waits for something; false if it hangs.
pub async fn comes(mut has_come: impl AsyncFnMut() -> bool) -> bool {
    let deadline = clock::now() + HANGS;
    while !has_come().await {
        if clock::now() > deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}
