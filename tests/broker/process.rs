//! `millrace dev` as a process of its own.

use std::net::SocketAddr;
use std::process::Command;

use crate::fixture::Place;
use crate::programs::Program;

/// `millrace dev` as a process of its own.
pub(crate) struct Process {
    pub(crate) program: Program,
    pub(crate) mqtt: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Process {
    /// Starts it; it serves when this returns.
    pub(crate) fn start(place: &Place, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("dev");
        let given = settings.iter().map(|&(key, value)| (key, value.to_owned()));
        for (key, value) in place.settings().into_iter().chain(given) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        let mut program = Program::start(&mut command);
        let welcome = program.line();
        let mut addresses = welcome.split([' ', ',', '/']).filter_map(|word| word.parse::<SocketAddr>().ok());
        let (mqtt, ops) = (addresses.next().unwrap(), addresses.next().unwrap());
        Self { program, mqtt, ops }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.program.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}
