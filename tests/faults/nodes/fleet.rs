//! Millrace nodes as processes of their own. What ends by itself is started again, as a supervisor of services does.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace::ops::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::history::{Deed, Recorder};

const LOOK: Duration = Duration::from_millis(100);
/// A supervisor waits so long.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Below the ports that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 11_000..19_000;
/// Ends the processes whose ids it was told when its input ends, which comes with the end of the test, however that
/// ends. They have the folder of the run in their arguments.
const KEEPER: &str = r#"trap "" INT TERM HUP
    ids=; while read -r id; do ids="$ids $id"; done
    for id in $ids; do grep -qsF "$0" "/proc/$id/cmdline" && kill -KILL "$id" 2>/dev/null; done"#;

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub mqtt: SocketAddr,
    pub ops: SocketAddr,
}

pub struct Fleet {
    pub nodes: Vec<Address>,
    folder: PathBuf,
    recorder: Arc<Recorder>,
    processes: Mutex<Vec<Process>>,
    keeper: Mutex<Child>,
}

/// ```text
/// Down ──start──▶ Up ──kill──▶ Down
///                  └──exit───▶ Gone ──start──▶ Up
/// ```
enum Process {
    /// It was killed, or never started.
    Down,
    Up(Child),
    /// It ended by itself; the supervisor will start it.
    Gone,
}

impl Fleet {
    /// Nothing runs yet. `settings` are lines of a configuration file, the same for all nodes.
    pub fn new(folder: &Path, count: usize, settings: &str, recorder: Arc<Recorder>) -> Arc<Self> {
        let mut command = Command::new("bash");
        command.args(["-c", KEEPER]).arg(folder).stdin(Stdio::piped()).process_group(0);
        let keeper = Mutex::new(command.spawn().unwrap());
        let nodes: Vec<Address> = (0..count).map(|_| Address { mqtt: free_address(), ops: free_address() }).collect();
        for (number, node) in nodes.iter().enumerate() {
            let own = format!(
                "node.id = \"n{number}\"\nlisten.mqtt = [\"{}\"]\nops.address = \"{}\"\n{settings}",
                node.mqtt, node.ops
            );
            std::fs::write(configuration(folder, number), own).unwrap();
        }
        let processes = Mutex::new(nodes.iter().map(|_| Process::Down).collect());
        let fleet = Arc::new(Self { nodes, folder: folder.to_owned(), recorder, processes, keeper });
        tasks::spawn("supervisor", supervise(Arc::downgrade(&fleet)));
        fleet
    }

    /// What `millrace` prints with these arguments and the configuration of the nodes; it must succeed.
    pub fn tool(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(arguments).arg("--config").arg(configuration(&self.folder, 0));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {printed}{said}");
        printed
    }

    pub fn start(&self, node: usize) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(processes[node], Process::Up(_)) {
            return;
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(node)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(["serve", "--config"]).arg(configuration(&self.folder, node));
        command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        self.recorder.deed(Deed::Started(node));
        let child = command.spawn().unwrap();
        self.keep(child.id());
        processes[node] = Process::Up(child);
    }

    /// Ended with the test.
    pub fn keep(&self, process_id: u32) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(keeper.stdin.as_mut().unwrap(), "{process_id}").unwrap();
    }

    /// SIGKILL.
    pub fn kill(&self, node: usize) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        self.recorder.deed(Deed::Killed(node));
        if let Process::Up(child) = &mut processes[node] {
            let _ = child.kill();
            let _ = child.wait();
        }
        processes[node] = Process::Down;
    }

    /// SIGSTOP.
    pub fn pause(&self, node: usize) {
        self.recorder.deed(Deed::Paused(node));
        self.signal(node, "STOP");
    }

    /// SIGCONT.
    pub fn resume(&self, node: usize) {
        self.recorder.deed(Deed::Resumed(node));
        self.signal(node, "CONT");
    }

    fn signal(&self, node: usize, name: &str) {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Process::Up(child) = &processes[node] {
            // It may have ended by itself: the supervisor sees that.
            let _ = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        }
    }

    /// Whether it says that it is ready.
    pub async fn is_ready(&self, node: usize) -> bool {
        self.page(node, "/readyz").await.starts_with("HTTP/1.1 200")
    }

    /// Keeps what nodes say of themselves beside their logs.
    pub async fn keep_pages(&self) {
        for node in 0..self.nodes.len() {
            for name in ["readyz", "metrics"] {
                let page = self.page(node, &format!("/{name}")).await;
                std::fs::write(self.folder.join(format!("node-{node}-{name}.txt")), page).unwrap();
            }
        }
    }

    /// An answer of a node's port for operators; empty if there is none.
    async fn page(&self, node: usize, path: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(self.nodes[node].ops).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(|_| Ok(String::new())).unwrap_or_default()
    }

    /// What a node wrote.
    pub fn log(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{node}.log"))
    }

    /// Lines in the nodes' logs that tell of a defect.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for node in 0..self.nodes.len() {
            let text = std::fs::read(self.log(node)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines = text.lines().filter(|line| line.contains("panicked"));
            complaints.extend(lines.map(|line| format!("the log of node {node}: {line}")));
        }
        complaints
    }

    /// Notes and starts what ended by itself.
    async fn supervise_once(&self) {
        let mut gone = Vec::new();
        {
            let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            for (node, process) in processes.iter_mut().enumerate() {
                if let Process::Up(child) = process
                    && let Ok(Some(status)) = child.try_wait()
                {
                    self.recorder.deed(Deed::Exited(node, status.to_string()));
                    *process = Process::Gone;
                }
                if matches!(process, Process::Gone) {
                    gone.push(node);
                }
            }
        }
        if gone.is_empty() {
            return;
        }
        sleep(RESTART_PAUSE).await;
        for node in gone {
            let is_gone = matches!(self.processes.lock().unwrap_or_else(PoisonError::into_inner)[node], Process::Gone);
            if is_gone {
                self.start(node);
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let processes = self.processes.get_mut().unwrap_or_else(PoisonError::into_inner);
        for process in processes {
            if let Process::Up(child) = process {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // Waiting closes its input first.
        let _ = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

async fn supervise(fleet: std::sync::Weak<Fleet>) {
    while let Some(fleet) = fleet.upgrade() {
        fleet.supervise_once().await;
        drop(fleet);
        sleep(LOOK).await;
    }
}

fn configuration(folder: &Path, node: usize) -> PathBuf {
    folder.join(format!("node-{node}.toml"))
}

/// An address that nobody listens on, and that no outgoing connection gets while a node is down.
pub fn free_address() -> SocketAddr {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let count = PORTS.end - PORTS.start;
    if *next == 0 {
        // Two runs at a time begin at different places.
        *next = PORTS.start + u16::try_from(std::process::id() % u32::from(count)).unwrap();
    }
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *next));
        *next = if *next + 1 == PORTS.end { PORTS.start } else { *next + 1 };
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
