//! Programs that others wrote, as child processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::fixture::{Place, skip};

/// A program that has said nothing for so long, or does not end, is stuck.
const LIMIT: Duration = Duration::from_secs(30);

/// A foreign program that tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Eclipse Paho for Python.
    Paho,
    /// MQTT.js.
    MqttJs,
    /// A Kafka client on librdkafka.
    Kcat,
}

impl Tool {
    /// Its name in `MILLRACE_TEST_MISSING`.
    fn name(self) -> &'static str {
        match self {
            Self::Paho => "paho-mqtt",
            Self::MqttJs => "mqttjs",
            Self::Kcat => "kcat",
        }
    }
}

/// Whether the tool is there. If not, the test is skipped loudly, and under `CI=true` it fails.
pub(crate) fn has(tool: Tool, place: &Place) -> bool {
    let is_missing = tools().missing.split_whitespace().any(|name| name == tool.name());
    if is_missing {
        let why = format!("{} is not installed; `make tools` installs it", tool.name());
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{}: {why}", place.test);
        skip(&place.test, &why);
    }
    !is_missing
}

/// Where the tools are.
struct Tools {
    missing: String,
    python: String,
    node_path: String,
}

fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let script = r#"eval "$(scripts/tools.sh env)"
            printf '%s\n' "$MILLRACE_TEST_MISSING" "${MILLRACE_TEST_PYTHON:-}" "${NODE_PATH:-}""#;
        let lines = output(Command::new("bash").args(["-c", script]));
        let mut lines = lines.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Tools { missing: next(), python: next(), node_path: next() }
    })
}

/// The folder of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn client_script(name: &str) -> PathBuf {
    repository().join("tests/clients").join(name)
}

/// A Paho script.
pub(crate) fn paho(script: &str) -> Command {
    let mut command = Command::new(&tools().python);
    command.arg(client_script("paho").join(script));
    command
}

/// A MQTT.js script.
pub(crate) fn mqttjs(script: &str) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", &tools().node_path).arg(client_script("mqttjs").join(script));
    command
}

/// Runs one of Kafka's own tools to its end; what it printed.
pub(crate) fn kafka_tool(tool: &str, arguments: &[&str]) -> String {
    output(Command::new("scripts/kafka-tool.sh").arg(tool).args(arguments))
}

/// Runs one of Kafka's own tools with this input.
pub(crate) fn kafka_tool_with_input(tool: &str, arguments: &[&str], input: &str) -> String {
    output_of_input(Command::new("scripts/kafka-tool.sh").arg(tool).args(arguments), input)
}

/// Runs a command in the repository's folder to its end, which must be a success; what it printed.
pub(crate) fn output(command: &mut Command) -> String {
    output_of_input(command, "")
}

/// [`output`] of a command that is given an input.
pub(crate) fn output_of_input(command: &mut Command, input: &str) -> String {
    let mut program = Program::start_with_input(command, input);
    program.end();
    program.lines().join("\n")
}

/// A child process; it ends with its value.
pub(crate) struct Program {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Program {
    /// Starts a command in the repository's folder.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, "")
    }

    fn start_with_input(command: &mut Command, input: &str) -> Self {
        command.current_dir(repository()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let (lines, errors) = (line_by_line(child.stdout.take()), line_by_line(child.stderr.take()));
        Self { name, child, lines, errors }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(error) => panic!("{} said nothing more ({error}); {}", self.name, self.complaints()),
        }
    }

    /// The next line it prints, as JSON.
    pub(crate) fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The next line it prints is JSON with `"saw": what`.
    pub(crate) fn saw(&mut self, what: &str) -> Value {
        let value = self.json();
        assert_eq!(value["saw"], what, "{value}");
        value
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn end(&mut self) {
        // stderr ends with the process, at the latest.
        let mut complaints = Vec::new();
        loop {
            match self.errors.recv_timeout(LIMIT) {
                Ok(line) => complaints.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{} does not end", self.name),
            }
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{} ended with {status}: {}", self.name, complaints.join("\n"));
    }

    /// What it printed and nobody has read yet, to the end of its output.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    fn complaints(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_by_line(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (to, lines) = channel();
    let pipe = pipe.unwrap();
    std::thread::spawn(move || {
        let lines = BufReader::new(pipe).lines().map_while(Result::ok);
        // Nobody may want to hear the rest.
        lines.take_while(|line| to.send(line.clone()).is_ok()).for_each(drop);
    });
    lines
}
