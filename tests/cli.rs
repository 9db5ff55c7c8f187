//! The program as an operator types it: configuration and kafka topics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// A folder with a configuration file, and names of kafka topics that nobody else uses.
struct Operator {
    folder: tempfile::TempDir,
    run: u128,
}

impl Operator {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a name that no other run uses")]
        let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        Self { folder: tempfile::tempdir().unwrap(), run }
    }

    fn name(&self, topic: &str) -> String {
        format!("cli-{}-{topic}", self.run)
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("millrace.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// A configuration for the Kafka of this test run; `None`, said loudly, without one.
    fn kafka_file(&self, test: &str) -> Option<PathBuf> {
        let Ok(bootstrap) = std::env::var("MILLRACE_TEST_KAFKA") else {
            println!("SKIPPED {test}: MILLRACE_TEST_KAFKA names no Kafka; `make test` starts one");
            return None;
        };
        Some(self.file_for(&bootstrap))
    }

    fn file_for(&self, bootstrap: &str) -> PathBuf {
        let servers: Vec<String> = bootstrap.split(',').map(|server| format!("{server:?}")).collect();
        self.file(&format!(
            "[listen]\nmqtt = [\"127.0.0.1:0\"]\n[ops]\naddress = \"127.0.0.1:0\"\n\
             [kafka]\nbootstrap = [{}]\n[mapping]\ndefault_topic = {:?}\n\
             [topics]\nreplication_factor = 1\nmin_insync_replicas = 1\n\
             [topics.retained]\nname = {:?}\npartitions = 2\n[topics.sessions]\nname = {:?}\npartitions = 2\n\
             [topics.cluster]\nname = {:?}\n",
            servers.join(", "),
            self.name("messages"),
            self.name("retained"),
            self.name("sessions"),
            self.name("cluster"),
        ))
    }
}

fn millrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_printed_defaults_are_a_valid_configuration() {
    let operator = Operator::new();
    let defaults = millrace(&["config", "default"]);
    assert!(defaults.status.success());
    let file = operator.file(&stdout(&defaults));
    let checked = millrace(&["config", "check", "--config", file.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", stderr(&checked));
}

#[test]
fn a_wrong_value_is_refused_with_its_key_and_its_place() {
    for (text, parts) in [
        ("[limits]\nconnect_timeout = \"soon\"\n", ["limits.connect_timeout", "soon", "millrace.toml, line 2"]),
        ("[limits]\n\nconections_max = 3\n", ["limits.conections_max", "connections_max?", "millrace.toml, line 3"]),
    ] {
        let operator = Operator::new();
        let file = operator.file(text);
        let checked = millrace(&["config", "check", "--config", file.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(2));
        let said = stderr(&checked);
        for part in parts {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    }
}

#[test]
fn a_wrong_environment_variable_is_named() {
    let checked = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["config", "check"])
        .env("MILLRACE__LIMITS__PACKET_BYTES_MAX", "huge")
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(2));
    assert!(stderr(&checked).contains("MILLRACE__LIMITS__PACKET_BYTES_MAX"), "{}", stderr(&checked));
}

#[test]
fn every_value_tells_its_source() {
    let operator = Operator::new();
    let file = operator.file("[limits]\nsubscriptions_max = 7\n");
    let file = file.to_str().unwrap();
    let shown = millrace(&["config", "show", "--with-source", "--config", file, "--set", "limits.receive_maximum=9"]);
    let text = stdout(&shown);
    let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {text}"));
    assert!(line("subscriptions_max").contains('7') && line("subscriptions_max").contains("millrace.toml"));
    assert!(line("receive_maximum").contains('9') && line("receive_maximum").contains("--set"));
}

#[test]
fn topics_are_planned_then_applied_then_found_right() {
    let operator = Operator::new();
    let Some(file) = operator.kafka_file("topics_are_planned_then_applied_then_found_right") else { return };
    let run = |command: &str| millrace(&["topics", command, "--config", file.to_str().unwrap()]);
    let planned = run("plan");
    assert!(stdout(&planned).contains(&operator.name("sessions")), "{}{}", stdout(&planned), stderr(&planned));
    assert_eq!(run("check").status.code(), Some(1), "nothing is there yet");
    let applied = run("apply");
    assert!(applied.status.success(), "{}{}", stdout(&applied), stderr(&applied));
    let checked = run("check");
    assert!(checked.status.success(), "{}{}", stdout(&checked), stderr(&checked));
}

#[test]
fn a_check_tells_that_dead_nodes_can_be_fenced() {
    let operator = Operator::new();
    let Some(file) = operator.kafka_file("a_check_tells_that_dead_nodes_can_be_fenced") else { return };
    let file = file.to_str().unwrap();
    assert!(millrace(&["topics", "apply", "--config", file]).status.success());
    let checked = millrace(&["topics", "check", "--config", file]);
    assert!(checked.status.success() && stdout(&checked).contains("fences: markers"), "{}", stdout(&checked));
}

#[test]
fn a_check_tells_what_a_user_with_few_rights_can_fence() {
    let operator = Operator::new();
    if operator.kafka_file("a_check_tells_what_a_user_with_few_rights_can_fence").is_none() {
        return;
    }
    let kafka = GuardedKafka::start();
    let file = operator.file_for(&kafka.bootstrap);
    let check = |messages: &str| {
        let messages = format!("mapping.default_topic={}", operator.name(messages));
        let arguments = ["--config", file.to_str().unwrap(), "--set", &messages];
        assert!(millrace(&[&["topics", "apply"], &arguments[..]].concat()).status.success());
        let checked = millrace(&[&["topics", "check"], &arguments[..]].concat());
        assert!(checked.status.success(), "{}", stderr(&checked));
        stdout(&checked)
    };
    for messages in ["ours", "theirs"] {
        assert!(check(messages).contains("fences: markers"), "while nobody has rights, everybody has all");
    }
    let theirs = operator.name("theirs");
    kafka.allow(&["--operation", "Read", "--operation", "DescribeConfigs", "--topic", &theirs]);
    assert!(check("theirs").contains("fences: markers"), "they need no right to the kafka topic");
    // The last right that can be given: from then on this user has none to give.
    kafka.allow(&["--operation", "Describe", "--cluster"]);
    let said = check("ours");
    assert!(said.contains("fences: records") && said.contains("--operation ClusterAction"), "{said}");
    let said = check("theirs");
    assert!(said.contains("fences: none") && said.contains(&format!("--topic {theirs} --operation Write")), "{said}");
}

/// A Kafka of its own that asks what a user may do; the only user is `ANONYMOUS`.
struct GuardedKafka {
    bootstrap: String,
    folder: tempfile::TempDir,
}

impl GuardedKafka {
    /// Its own controller comes as somebody else, over a listener with passwords.
    const EXTRA: &str = r#"
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
sasl.mechanism.controller.protocol=PLAIN
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="admin" user_admin="admin";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin
allow.everyone.if.no.acl.found=true
"#;

    fn start() -> Self {
        let mut kafka = Self { bootstrap: String::new(), folder: tempfile::tempdir().unwrap() };
        let started = kafka.script("kafka.sh").arg("start").output().unwrap();
        assert!(started.status.success(), "{}", stderr(&started));
        stdout(&started).trim().clone_into(&mut kafka.bootstrap);
        kafka
    }

    fn allow(&self, rights: &[&str]) {
        let mut tool = self.script("kafka-tool.sh");
        tool.args(["acls", "--bootstrap-server", &self.bootstrap, "--add", "--allow-principal", "User:ANONYMOUS"]);
        let allowed = tool.args(rights).output().unwrap();
        assert!(allowed.status.success(), "{}", stderr(&allowed));
    }

    fn script(&self, name: &str) -> Command {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name));
        script.env("KAFKA_DIR", self.folder.path().join("kafka"));
        script.env("KAFKA_PORT", "auto").env("KAFKA_NODES", "1").env("KAFKA_EXTRA", Self::EXTRA);
        script
    }
}

impl Drop for GuardedKafka {
    fn drop(&mut self) {
        let _is_over = self.script("kafka.sh").args(["stop", "--clean"]).output();
    }
}

#[test]
fn a_wrong_partition_count_or_a_missing_compaction_refuses_the_start() {
    let operator = Operator::new();
    let Some(file) = operator.kafka_file("a_wrong_partition_count_or_a_missing_compaction_refuses_the_start") else {
        return;
    };
    let file = file.to_str().unwrap();
    assert!(millrace(&["topics", "apply", "--config", file]).status.success());

    let other_count = ["--set", "topics.sessions.partitions=3"];
    for command in [&["topics", "check"][..], &["serve"][..]] {
        let refused = millrace(&[command, &["--config", file], &other_count].concat());
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let said = stdout(&refused) + &stderr(&refused);
        assert!(said.contains("has 2 partitions") && said.contains("topics.sessions.partitions = 2"), "{said}");
    }

    // The message topic is not compacted: taken for the retained topic it must be refused.
    let messages = format!("topics.retained.name={}", operator.name("messages"));
    let other_names = ["--set", &messages, "--set", "mapping.default_topic=another", "--set", "topics.create=true"];
    let refused = millrace(&[&["serve", "--config", file], &other_names[..]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let said = stdout(&refused) + &stderr(&refused);
    assert!(said.contains("cleanup.policy=delete") && said.contains("kafka-configs.sh"), "{said}");
}

#[test]
fn a_kafka_that_is_not_there_is_told_by_its_address() {
    let set = [
        "--set",
        "kafka.bootstrap=127.0.0.1:1",
        "--set",
        "listen.mqtt=127.0.0.1:0",
        "--set",
        "ops.address=127.0.0.1:0",
    ];
    let refused = millrace(&[&["serve"], &set[..]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("127.0.0.1:1"), "{}", stderr(&refused));
}
