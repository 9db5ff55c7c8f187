use std::path::Path;
use std::time::Duration;

use super::*;

fn from_file(text: &str) -> Result<Loaded, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    load_files(dir.path(), &[("millrace.toml", text)])
}

fn load_files(dir: &Path, files: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
    let files = files
        .iter()
        .map(|(name, text)| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    load(&Sources { files, ..Sources::default() })
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(flag: &str, key: &str, value: &str) -> Flag {
    Flag { flag: flag.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

/// The one error of a configuration that has exactly one.
fn only_error(result: Result<Loaded, ConfigErrors>) -> ConfigError {
    let errors = result.unwrap_err().0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn the_defaults_are_a_valid_file() {
    let loaded = from_file(DEFAULTS).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!(limits.packet_bytes_max, 256 * 1024);
    assert_eq!(limits.connect_timeout, Duration::from_secs(5));
    assert_eq!(limits.keep_alive_max, Duration::from_mins(20));
    assert!(matches!(loaded.config.journal, JournalChoice::Kafka(_)));
}

#[test]
fn every_key_of_the_defaults_has_a_comment() {
    let mut commented = false;
    for line in DEFAULTS.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        // Keys with a Kafka twin of the same name are described by their table.
        let in_state_tuning = ["segment_", "min_", "max_", "delete_"].iter().any(|start| line.starts_with(start));
        let named_after_table = line.starts_with("name = ") || line.starts_with("partitions = ");
        assert!(!is_key || commented || in_state_tuning || named_after_table, "no comment above {line:?}");
        commented = line.starts_with('#');
    }
}

#[test]
fn what_show_prints_is_a_file_with_the_same_meaning() {
    let sources = Sources {
        flags: vec![
            flag("--set", "mapping.rules", r#"[{filter="a/{b}", kafka_topic="as", key="{b}"}]"#),
            flag("--set", "limits.queue_bytes_max", "2MiB"),
        ],
        ..Sources::default()
    };
    let first = load(&sources).unwrap();
    let text = first.effective.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let second = from_file(&text).unwrap();
    assert_eq!(second.config.limits, first.config.limits);
    assert_eq!(second.config.mapping.rules, first.config.mapping.rules);
    assert_eq!(second.config.topics, first.config.topics);
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut sources = Sources {
        files: vec![
            write("a.toml", "limits.receive_maximum = 1\nlimits.subscriptions_max = 1\nlog.level = \"warn\""),
            write("b.toml", "limits.receive_maximum = 2\nlimits.subscriptions_max = 2"),
        ],
        env: env(&[("MILLRACE__LIMITS__RECEIVE_MAXIMUM", "3"), ("PATH", "/bin"), ("MILLRACE_PORT", "tcp://10.0.0.1")]),
        ..Sources::default()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!((config.limits.receive_maximum, config.limits.subscriptions_max), (3, 2));
    sources.flags.push(flag("--set", "limits.receive_maximum", "4"));
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.limits.receive_maximum, 4);
    let source = |key: &str| loaded.effective.iter().find(|e| e.key == key).unwrap().source.clone();
    assert_eq!(source("limits.receive_maximum"), "flag --set");
    assert!(source("limits.subscriptions_max").ends_with("b.toml, line 2"));
    assert!(source("log.level").ends_with("a.toml, line 3"));
    assert_eq!(source("log.format"), "default");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    let error = only_error(from_file("[limits]\n# larger\npacket_byte_max = 5\n"));
    assert_eq!(error.key, "limits.packet_byte_max");
    assert!(error.source.ends_with("millrace.toml, line 3"), "{}", error.source);
    assert!(error.what.ends_with("did you mean limits.packet_bytes_max?"), "{}", error.what);
}

#[test]
fn an_unknown_environment_variable_is_refused_by_name() {
    let sources = Sources { env: env(&[("MILLRACE__LISTEN__MQTTT", "x")]), ..Sources::default() };
    let error = only_error(load(&sources));
    assert_eq!(error.source, "environment variable MILLRACE__LISTEN__MQTTT");
    assert_eq!(error.key, "listen.mqttt");
}

#[test]
fn a_wrong_value_names_its_key_and_source() {
    let error = only_error(from_file("[limits]\nconnect_timeout = \"5 bananas\"\n"));
    assert_eq!(error.key, "limits.connect_timeout");
    assert!(error.source.ends_with("line 2"), "{}", error.source);
    assert!(error.what.contains("is not a duration"), "{}", error.what);

    let sources = Sources { env: env(&[("MILLRACE__LIMITS__RECEIVE_MAXIMUM", "many")]), ..Sources::default() };
    let error = only_error(load(&sources));
    assert_eq!(error.key, "limits.receive_maximum");
    assert_eq!(error.source, "environment variable MILLRACE__LIMITS__RECEIVE_MAXIMUM");

    let sources = Sources { flags: vec![flag("--listen", "listen.mqtt", "localhost")], ..Sources::default() };
    let error = only_error(load(&sources));
    assert_eq!(error.source, "flag --listen");
    assert_eq!(error.key, "listen.mqtt.0");
}

#[test]
fn every_range_violation_is_reported_at_once() {
    let text = "[limits]\nreceive_maximum = 0\nsubscriptions_max = 0\n[topics]\nmin_insync_replicas = 9\n";
    let errors = from_file(text).unwrap_err().0;
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["limits.receive_maximum", "limits.subscriptions_max", "topics.min_insync_replicas"]);
    assert!(errors.iter().all(|error| error.source.contains("millrace.toml, line ")), "{errors:?}");
}

#[test]
fn a_broken_file_is_refused_with_its_line() {
    let error = only_error(from_file("[limits]\npacket_bytes_max = \n"));
    assert!(error.what.starts_with("line 2: "), "{}", error.what);
    let missing = Sources { files: vec!["/no/such/file.toml".into()], ..Sources::default() };
    assert!(only_error(load(&missing)).what.starts_with("cannot be read"));
}

#[test]
fn text_stays_text_and_lists_take_commas() {
    let pairs = [("MILLRACE__NODE__ID", "42"), ("MILLRACE__KAFKA__BOOTSTRAP", "k1:9092, k2:9092")];
    let config = load(&Sources { env: env(&pairs), ..Sources::default() }).unwrap().config;
    assert_eq!(config.node_id, "42");
    let JournalChoice::Kafka(kafka) = config.journal else { panic!("Kafka is the default") };
    assert_eq!(kafka.bootstrap, ["k1:9092", "k2:9092"]);
}

#[test]
fn a_public_listener_needs_a_decision_about_anonymous_clients() {
    let error = only_error(from_file("listen.mqtt = [\"127.0.0.1:1883\", \"0.0.0.0:1883\"]"));
    assert_eq!(error.key, "listen.mqtt.1");
    from_file("listen.mqtt = [\"0.0.0.0:1883\"]\nauth.anonymous = true").unwrap();
}

#[test]
fn a_mapping_rule_that_cannot_work_is_refused_by_its_place() {
    let text = "[[mapping.rules]]\nfilter = \"a/#\"\nkafka_topic = \"as\"\n\n[[mapping.rules]]\nfilter = \"a/#/b\"\nkafka_topic = \"bs\"\n";
    let error = only_error(from_file(text));
    assert_eq!(error.key, "mapping.rules.1");
    assert!(error.source.ends_with("line 5"), "{}", error.source);

    let error = only_error(from_file("[[mapping.rules]]\nfilter = \"a\"\nkafka_topic = \"x\"\nkeys = \"y\"\n"));
    assert!(error.key.starts_with("mapping.rules"), "{error}");
    assert!(error.what.contains("keys"), "{error}");
}

#[test]
fn the_largest_packet_fits_a_batch() {
    let larger = "limits.packet_bytes_max = \"512KiB\"\n";
    let error = only_error(from_file(larger));
    assert_eq!((error.key.as_str(), error.source.as_str()), ("kafka.batch_bytes_max", "default"));
    from_file(&format!("{larger}journal.kind = \"memory\"")).unwrap();
}

#[test]
fn messages_and_state_never_share_a_kafka_topic() {
    let error = only_error(from_file("mapping.default_topic = \"mqtt.sessions\""));
    assert_eq!(error.key, "topics.sessions.name");
}

#[test]
fn development_needs_no_kafka_and_no_file() {
    let config = load(&Sources { preset: Preset::Dev, ..Sources::default() }).unwrap().config;
    assert_eq!(config.journal, JournalChoice::Memory);
    assert!(config.auth.anonymous && config.topics.create);
    assert!(config.listen.mqtt.iter().all(|address| address.ip().is_loopback()));
    assert_eq!(config.topics.replication_factor, 1);
}
