//! A Kafka of our own for the time of the measurement, and Kafka's own tools.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use millrace::journal::kafka::{KafkaJournal, KafkaOptions};
use millrace::journal::{AckSink, Journal, TopicSpec};
use millrace::ops::tasks;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::load::Counted;

/// What a measurement comes to.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A running Kafka; dropping it stops it and removes its data.
pub struct Cluster {
    dir: TempDir,
    /// All nodes.
    pub bootstrap: Vec<String>,
    /// Its Java processes.
    pub pids: Vec<u32>,
    /// Kafka's.
    pub version: String,
    on_signal: Option<JoinHandle<()>>,
}

fn script(name: &str) -> Command {
    Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name))
}

fn output_of(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{command:?}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

impl Cluster {
    /// Starts it on free ports and waits until all nodes answer.
    pub fn start(nodes: u32) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("millrace-bench.").tempdir()?;
        let mut cluster =
            Self { dir, bootstrap: Vec::new(), pids: Vec::new(), version: String::new(), on_signal: None };
        cluster.on_signal = Some(cluster.stop_on_signal()?);
        let mut start = cluster.kafka_sh("start");
        start.env("KAFKA_NODES", nodes.to_string()).env("KAFKA_PORT", "auto");
        cluster.bootstrap = output_of(start)?.trim().split(',').map(str::to_owned).collect();
        for node in 1..=nodes {
            let pid = std::fs::read_to_string(cluster.data().join(format!("node-{node}.pid")))?;
            cluster.pids.push(pid.trim().parse()?);
        }
        let remembered = std::fs::read_to_string(cluster.data().join("cluster"))?;
        let version = remembered.lines().find_map(|line| line.strip_prefix("version="));
        version.unwrap_or("unknown").clone_into(&mut cluster.version);
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("kafka")
    }

    fn kafka_sh(&self, command: &str) -> Command {
        let mut kafka_sh = script("kafka.sh");
        kafka_sh.arg(command).env("KAFKA_DIR", self.data()).env_remove("KAFKA_PORT").env_remove("KAFKA_NODES");
        kafka_sh
    }

    /// A signal must not leave Kafka behind.
    fn stop_on_signal(&self) -> Result<JoinHandle<()>> {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut stop = self.kafka_sh("stop");
        stop.arg("--clean");
        Ok(tasks::spawn("bench signals", async move {
            tokio::select! { _ = interrupted.recv() => {} _ = terminated.recv() => {} }
            drop(stop.status());
            std::process::exit(130);
        }))
    }

    /// One of Kafka's own programs, not yet started. It is told where Kafka is by its arguments.
    pub fn tool(&self, arguments: &[&str]) -> Command {
        let mut tool = script("kafka-tool.sh");
        tool.args(arguments).env("KAFKA_VERSION", &self.version);
        tool
    }

    /// Runs one of Kafka's own programs; what it printed.
    pub fn run_tool(&self, arguments: &[&str]) -> Result<String> {
        output_of(self.tool(arguments))
    }

    /// Starts one of Kafka's own programs and leaves it running.
    pub fn spawn_tool(&self, arguments: &[&str]) -> Result<Child> {
        Ok(self.tool(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// `host:port,host:port`
    pub fn address(&self) -> String {
        self.bootstrap.join(",")
    }

    /// The journal's defaults.
    pub fn options(&self) -> KafkaOptions {
        KafkaOptions::new(self.bootstrap.clone())
    }

    /// Creates a kafka topic; copies and in-sync replicas are the cluster's defaults (3 and 2 where there are 3 nodes).
    pub async fn create(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Result<()> {
        let journal = KafkaJournal::open(self.options(), Vec::new(), Arc::new(Counted::default())).await?;
        let mut configs: Vec<_> = configs.iter().map(|(key, value)| (String::from(*key), (*value).into())).collect();
        configs.sort();
        let spec = TopicSpec { name: name.to_owned(), partitions, replication_factor: None, configs };
        Ok(journal.create(&[spec]).await?)
    }

    /// Throws kafka topics away; their files are gone some seconds later.
    pub fn delete(&self, pattern: &str) -> Result<()> {
        self.run_tool(&["topics", "--bootstrap-server", &self.address(), "--delete", "--topic", pattern])?;
        Ok(())
    }

    /// A journal of one kafka topic.
    pub async fn open(&self, options: KafkaOptions, topic: &str, sink: Arc<dyn AckSink>) -> Result<KafkaJournal> {
        Ok(KafkaJournal::open(options, vec![topic.to_owned()], sink).await?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(on_signal) = self.on_signal.take() {
            on_signal.abort();
        }
        let mut stop = self.kafka_sh("stop");
        if let Err(error) = stop.arg("--clean").status() {
            eprintln!("Kafka may still run: {error}");
        }
    }
}

/// The first line of what a program says of itself, on whichever stream.
pub fn version_line(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return format!("{program} unknown") };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}
