//! A real Kafka for one run, started and stopped by `scripts/kafka.sh`. It ends with its value, and with this process
//! however that ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

/// One Kafka at a time: a fault should come from the fault.
static ALONE: Mutex<()> = Mutex::new(());
/// Waits for the end of its input, which comes with the end of the test.
const KEEPER: &str = r#"trap "" INT TERM HUP; cat >/dev/null; "$0" stop --clean && rm -rf "$1""#;

/// The default of the scripts.
const VERSION: &str = "4.3.0";

/// What kind of Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The one of `KAFKA_VERSION`, else of the scripts, where it does not matter.
    pub version: Option<&'static str>,
    pub nodes: u32,
    /// The port that Kafka tells clients to come to; its own by default. Only for one node.
    pub advertised_port: Option<u16>,
}

pub const ONE: Setup = Setup { version: None, nodes: 1, advertised_port: None };
pub const THREE: Setup = Setup { nodes: 3, ..ONE };

pub struct Cluster {
    pub setup: Setup,
    pub version: String,
    /// `host:port` of each node, as it listens.
    pub bootstrap: Vec<String>,
    folder: TempDir,
    keeper: Child,
    _alone: MutexGuard<'static, ()>,
}

/// Whether runs with Kafka are wanted; says so when not.
pub fn is_wanted(test: &str) -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let wanted = set("MILLRACE_TEST_KAFKA") || set("MILLRACE_TEST_FAULTS");
    if !wanted {
        eprintln!("SKIPPED {test}: neither MILLRACE_TEST_KAFKA nor MILLRACE_TEST_FAULTS is set");
    }
    wanted
}

impl Cluster {
    pub fn start(setup: Setup) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let chosen = std::env::var("KAFKA_VERSION").ok().filter(|version| !version.is_empty());
        let version = setup.version.map(str::to_owned).or(chosen).unwrap_or_else(|| VERSION.to_owned());
        let mut keeper = Command::new("bash");
        keeper.args(["-c", KEEPER]).arg(script_path("kafka.sh")).arg(folder.path());
        environment(&mut keeper, &setup, &version, folder.path());
        // A signal to the whole group of the test must not reach it.
        let keeper = keeper.process_group(0).stdin(Stdio::piped()).spawn().unwrap();
        let mut cluster = Self { setup, version, bootstrap: Vec::new(), folder, keeper, _alone: alone };
        cluster.start_again();
        cluster
    }

    /// Starts all nodes, the first time or after [`Cluster::stop`].
    pub fn start_again(&mut self) {
        let printed = self.script(&["start"]);
        self.bootstrap = printed.trim().split(',').map(str::to_owned).collect();
    }

    /// SIGTERM to all nodes; waits for their end.
    pub fn stop(&self) {
        self.script(&["stop"]);
    }

    /// SIGKILL; waits for the end.
    pub fn kill(&self, node: u32) {
        self.script(&["kill", &node.to_string()]);
    }

    /// Starts a killed node; waits until it answers.
    pub fn restart(&self, node: u32) {
        self.script(&["restart-node", &node.to_string()]);
    }

    pub fn pause(&self, node: u32) {
        self.script(&["pause", &node.to_string()]);
    }

    pub fn resume(&self, node: u32) {
        self.script(&["resume", &node.to_string()]);
    }

    pub fn nodes(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.setup.nodes
    }

    /// One of Kafka's own tools, with `--bootstrap-server`.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = self.command("kafka-tool.sh");
        command.arg(name).args(["--bootstrap-server", &self.bootstrap.join(",")]).args(arguments);
        run(command)
    }

    /// The foreign producer, with these arguments after the bootstrap address.
    pub fn foreign(&self, arguments: &[&str]) -> String {
        let mut command = self.command("kafka-tool.sh");
        command.arg("txn-producer").arg(self.bootstrap.join(",")).args(arguments);
        run(command)
    }

    /// A file in this run's folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn script(&self, arguments: &[&str]) -> String {
        let mut command = self.command("kafka.sh");
        command.args(arguments);
        run(command)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(script_path(script));
        environment(&mut command, &self.setup, &self.version, self.folder.path());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Waiting closes its input first.
        let stopped = self.keeper.wait();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("a Kafka was not stopped; its folder is {}", self.folder.path().display());
        }
    }
}

fn script_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

fn environment(command: &mut Command, setup: &Setup, version: &str, folder: &Path) {
    let advertised = setup.advertised_port.map(|port| format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"));
    command
        .env("KAFKA_DIR", folder.join("kafka"))
        .env("KAFKA_PORT", "auto")
        .env("KAFKA_VERSION", version)
        .env("KAFKA_NODES", setup.nodes.to_string())
        .env("KAFKA_JVM", "-Xms192m -Xmx384m -XX:TieredStopAtLevel=1")
        .env("KAFKA_TOOL_JVM", "-Xmx256m -XX:TieredStopAtLevel=1")
        .env("KAFKA_WAIT", "120")
        .env("KAFKA_EXTRA", advertised.unwrap_or_default());
}

/// What it printed; it must succeed.
fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}{said}");
    printed
}
