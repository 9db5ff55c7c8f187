//! Kafka programs that others wrote read what clients published and write what clients receive: Kafka's own console
//! tools and Java producer, kcat (librdkafka) and rskafka.

use std::process::Command;

use millrace::mqtt::packet::QoS;
use millrace::mqtt::properties::UserProperties;
use rskafka::client::partition::Compression;
use serde_json::{Value, json};

use crate::fixture::{Journal, Place, TestNode};
use crate::packets::{V5, V311, publish};
use crate::programs::{Tool, has, kafka_tool, kafka_tool_with_input, output, output_of_input};
use crate::raw::RawClient;
use crate::the_log::{ForeignRecord, read_kafka, record, write_kafka};

on_kafka![
    the_console_consumer_reads_what_was_published,
    the_console_producer_writes_what_is_delivered,
    kcat_reads_what_was_published,
    kcat_writes_what_is_delivered,
    rskafka_reads_what_was_published,
    rskafka_writes_what_is_delivered,
    the_java_producer_writes_what_is_delivered_in_every_compression,
    a_java_transaction_is_delivered_when_it_commits_and_never_when_it_aborts,
    the_java_client_and_we_put_a_key_into_the_same_partition,
];

/// Compresses well, and is far above the size from which batches are compressed.
const LARGE: usize = 20_000;

fn bootstrap(place: &Place) -> &str {
    match &place.journal {
        Journal::Kafka(bootstrap) => bootstrap,
        Journal::Memory(_) => panic!("these tests are about Kafka"),
    }
}

/// Small ones, a large one, one without properties and one with; batches of one record and of many.
fn publish_samples(node: &TestNode) {
    let mut new = RawClient::connected(node, V5, "new");
    let mut message = publish("a/b", "grüße".as_bytes());
    message.properties.content_type = Some("text/plain");
    message.properties.user_properties = UserProperties::Pairs(&[("k", "1"), ("k", "2")]);
    new.publish_with(&message);
    let mut old = RawClient::connected(node, V311, "old");
    old.publish("a/c", "x".repeat(LARGE));
    let many: Vec<u8> = (1..=50)
        .flat_map(|id| {
            let text = format!("{id} {}", "y".repeat(500));
            old.wire(&millrace::mqtt::Packet::Publish(crate::packets::publish_1(id, "a/d", text.as_bytes())))
        })
        .collect();
    old.send_bytes(&many);
    (1..=50).for_each(|id| old.expect_puback(id));
}

fn the_console_consumer_reads_what_was_published(place: &Place) {
    let node = place.start();
    publish_samples(&node);
    let printed = kafka_tool(
        "console-consumer",
        &[
            "--bootstrap-server",
            bootstrap(place),
            "--topic",
            &place.default_topic(),
            "--from-beginning",
            "--max-messages",
            "52",
            "--formatter-property",
            "print.key=true",
            "--formatter-property",
            "print.headers=true",
        ],
    );
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "mqtt-qos:1,mqtt-content-type:text/plain,mqtt-publisher:new,k:1,k:2\ta/b\tgrüße");
    assert_eq!(lines[1], format!("mqtt-qos:1,mqtt-publisher:old\ta/c\t{}", "x".repeat(LARGE)));
    assert_eq!(lines.len(), 52);
    assert!(lines[51].contains("\ta/d\t50 y"));
}

fn the_console_producer_writes_what_is_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a/#", QoS::AtLeastOnce);
    for codec in ["none", "lz4"] {
        let large = "x".repeat(LARGE);
        kafka_tool_with_input(
            "console-producer",
            &[
                "--bootstrap-server",
                bootstrap(place),
                "--topic",
                &place.default_topic(),
                "--compression-codec",
                codec,
                "--reader-property",
                "parse.key=true",
                "--reader-property",
                "parse.headers=true",
            ],
            &format!("unit:C,unit:F\ta/b\t21.5\nempty:\ta/c\t{large}\n"),
        );
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        assert_eq!(subscriber.expect_text("a/b", "21.5").user_properties, pairs(&[("unit", "C"), ("unit", "F")]));
        assert_eq!(subscriber.expect_text("a/c", &large).user_properties, pairs(&[("empty", "")]));
    }
}

fn kcat(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", bootstrap(place), "-t", &place.default_topic()]).args(arguments);
    command
}

fn kcat_reads_what_was_published(place: &Place) {
    if !has(Tool::Kcat, place) {
        return;
    }
    let node = place.start();
    publish_samples(&node);
    let printed = output(&mut kcat(place, &["-C", "-J", "-o", "beginning", "-e"]));
    let records: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 52);
    assert_eq!((&records[0]["key"], &records[0]["payload"]), (&json!("a/b"), &json!("grüße")));
    let headers =
        json!(["mqtt-qos", "1", "mqtt-content-type", "text/plain", "mqtt-publisher", "new", "k", "1", "k", "2"]);
    assert_eq!(records[0]["headers"], headers);
    assert_eq!((&records[1]["key"], &records[1]["payload"]), (&json!("a/c"), &json!("x".repeat(LARGE))));
    assert_eq!(records[51]["key"], json!("a/d"));
    assert_eq!(records[51]["offset"], json!(51));
}

fn kcat_writes_what_is_delivered(place: &Place) {
    if !has(Tool::Kcat, place) {
        return;
    }
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a/#", QoS::AtLeastOnce);
    for codec in ["none", "lz4", "gzip", "snappy", "zstd"] {
        let headers = ["-H", "unit=C", "-H", "mqtt-content-type=text/plain", "-H", "unit=F"];
        let large = "x".repeat(LARGE);
        output_of_input(kcat(place, &["-P", "-z", codec, "-k", "a/b"]).args(headers), &format!("21.5\n{large}\n"));
        output_of_input(&mut kcat(place, &["-P", "-z", codec, "-k", "a/plain"]), "no header\n");
        for text in ["21.5", &large] {
            let message = subscriber.expect_text("a/b", text);
            assert_eq!(message.content_type.as_deref(), Some("text/plain"));
            let pairs = [("unit", "C"), ("unit", "F")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(message.user_properties, pairs);
        }
        assert_eq!(subscriber.expect_text("a/plain", "no header").user_properties, []);
    }
    // A tombstone of kcat.
    output_of_input(&mut kcat(place, &["-P", "-Z", "-k", "a/b"]), "\n");
    RawClient::connected(&node, V5, "publisher").publish("a/b", "marker");
    while subscriber.expect_message().text() != "marker" {}
}

fn rskafka_reads_what_was_published(place: &Place) {
    let node = place.start();
    publish_samples(&node);
    let records = read_kafka(bootstrap(place), &place.default_topic(), 0);
    assert_eq!(records.len(), 52);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some("a/b"), Some("grüße".as_bytes())));
    assert_eq!(records[0].headers["mqtt-content-type"], b"text/plain");
    assert_eq!(records[1].value.as_deref(), Some("x".repeat(LARGE).as_bytes()));
    assert_eq!(records[51].key.as_deref(), Some("a/d"));
}

fn rskafka_writes_what_is_delivered(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a/#", QoS::AtLeastOnce);
    for compression in [Compression::NoCompression, Compression::Lz4] {
        let large = "x".repeat(LARGE);
        let with_headers = ForeignRecord { headers: vec![("unit", b"C".to_vec())], ..record("a/b", "21.5") };
        let records = [with_headers, record("a/c", &large), record("a/d", "")];
        write_kafka(bootstrap(place), &place.default_topic(), 0, &records, compression);
        let message = subscriber.expect_text("a/b", "21.5");
        assert_eq!(message.user_properties, [("unit".to_owned(), "C".to_owned())]);
        subscriber.expect_text("a/c", &large);
        subscriber.expect_text("a/d", "");
    }
}

#[track_caller]
fn expect_java_records(subscriber: &mut RawClient, outcome: &str, headers: bool) {
    for number in 0..10 {
        let message = subscriber.expect_message();
        assert_eq!(message.topic, format!("txn/{number}"));
        assert!(message.text().starts_with(&format!("{outcome} {number} ")), "{}", message.text());
        // The last one has a null value.
        let pairs = [("origin", "java"), ("origin", "txn"), ("nothing", "")];
        let wanted: Vec<_> =
            pairs.iter().filter(|_| headers).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(message.user_properties, wanted);
    }
}

fn the_java_producer_writes_what_is_delivered_in_every_compression(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "txn/#", QoS::AtLeastOnce);
    for (codec, headers) in [("none", "no-headers"), ("lz4", "headers"), ("zstd", "headers")] {
        kafka_tool("txn-producer", &[bootstrap(place), &place.default_topic(), "plain", codec, "10", headers]);
        expect_java_records(&mut subscriber, "plain", headers == "headers");
    }
}

fn a_java_transaction_is_delivered_when_it_commits_and_never_when_it_aborts(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "txn/#", QoS::AtLeastOnce);
    let write = |outcome: &str, codec: &str, headers: &str| {
        kafka_tool("txn-producer", &[bootstrap(place), &place.default_topic(), outcome, codec, "10", headers]);
    };
    write("abort", "lz4", "headers");
    write("commit", "none", "no-headers");
    expect_java_records(&mut subscriber, "commit", false);
    write("abort", "none", "no-headers");
    write("commit", "lz4", "headers");
    expect_java_records(&mut subscriber, "commit", true);
    RawClient::connected(&node, V5, "publisher").publish("txn/0", "marker");
    subscriber.expect_text("txn/0", "marker");
}

/// So an exact filter, which reads one partition, gets the records of Java programs without anything being configured.
fn the_java_client_and_we_put_a_key_into_the_same_partition(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "16")]);
    let mut subscribers: Vec<_> =
        (0..10).map(|number| RawClient::subscribed(&node, V5, &format!("txn/{number}"), QoS::AtLeastOnce)).collect();
    kafka_tool("txn-producer", &[bootstrap(place), &place.default_topic(), "plain"]);
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        assert_eq!(subscriber.expect_message().topic, format!("txn/{number}"));
    }
    assert!(node.metric("millrace_foreign_partitioner_total") < 1.0);
}
