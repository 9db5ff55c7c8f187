//! haproxy in front of the nodes, as an operator has it: TCP, health checks on `/readyz`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::fleet::Address;

const PROGRAM: &str = "haproxy";

/// Whether there is one; says so loudly when not. Under `CI=true` it must be there.
pub fn is_there(test: &str) -> bool {
    let is_there = Command::new(PROGRAM).arg("-v").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !is_there {
        let why = "haproxy is not installed; `make tools` installs it";
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{test}: {why}");
        eprintln!("################ SKIPPED {test}: {why}");
    }
    is_there
}

pub struct Balancer {
    pub address: SocketAddr,
    control: PathBuf,
    process: Child,
}

impl Balancer {
    pub fn start(folder: &Path, address: SocketAddr, nodes: &[Address]) -> Self {
        let (control, file) = (folder.join("haproxy.sock"), folder.join("haproxy.cfg"));
        let mut text = format!(
            "global\n  maxconn 8000\n  stats socket {} level admin\n\
             defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n  timeout check 1s\n  \
             retries 3\n  option redispatch 1\n\
             frontend mqtt\n  bind {address}\n  default_backend nodes\n\
             backend nodes\n  balance leastconn\n  option httpchk GET /readyz\n  \
             default-server inter 300ms fall 2 rise 1\n",
            control.display()
        );
        for (number, node) in nodes.iter().enumerate() {
            let (address, port) = (node.ops.ip(), node.ops.port());
            let _ = writeln!(text, "  server n{number} {} check addr {address} port {port}", node.mqtt);
        }
        std::fs::write(&file, text).unwrap();
        let log = std::fs::File::create(folder.join("haproxy.log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        Self { address, control, process: command.spawn().unwrap() }
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Cuts every connection to a node, on both sides.
    pub fn cut(&self, node: usize) {
        let mut control = UnixStream::connect(&self.control).unwrap();
        control.write_all(format!("shutdown sessions server nodes/n{node}\n").as_bytes()).unwrap();
        control.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        control.read_to_string(&mut said).unwrap();
        assert_eq!(said.trim(), "", "haproxy");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
