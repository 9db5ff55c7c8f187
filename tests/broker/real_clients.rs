//! MQTT clients that others wrote, as programs: Eclipse Paho for Python and MQTT.js. What they are told and print is in
//! `tests/clients`.

use std::process::Command;

use millrace::mqtt::packet::{PublishProperties, QoS};
use millrace::mqtt::properties::UserProperties;
use serde_json::{Value, json};

use crate::fixture::Place;
use crate::packets::{V5, publish};
use crate::programs::{Program, Tool, has, mqttjs, paho};
use crate::raw::RawClient;

on_both_journals![
    paho_receives_what_was_published,
    paho_publishes,
    paho_leaves_its_will,
    mqttjs_receives_what_was_published,
    mqttjs_publishes,
    mqttjs_leaves_its_will,
    paho_and_mqttjs_talk_to_each_other,
];

const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5"];

/// One of the two: they take the same arguments and print the same.
#[derive(Clone, Copy)]
struct Client {
    tool: Tool,
    script: fn(&str) -> Command,
}

const PAHO: Client = Client { tool: Tool::Paho, script: |name| paho(&format!("{name}.py")) };
const MQTTJS: Client = Client { tool: Tool::MqttJs, script: |name| mqttjs(&format!("{name}.cjs")) };

impl Client {
    fn start(self, script: &str, arguments: &[&str]) -> Program {
        let mut program = Program::start((self.script)(script).args(arguments));
        let connack = program.saw("connack");
        assert_eq!(connack["reason"], 0, "{connack}");
        program
    }

    fn subscribe(self, arguments: &[&str]) -> Program {
        let mut program = self.start("subscribe", arguments);
        let granted: u8 = arguments[3].parse().unwrap();
        assert_eq!(program.saw("suback")["reasons"], json!([granted]));
        program
    }
}

fn text_of(message: &Value) -> String {
    // The scripts print base64; the numbers that are published are digits.
    let digits = base64(message["payload"].as_str().unwrap());
    String::from_utf8(digits).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is not base64"),
    };
    let bits = text.bytes().filter(|c| *c != b'=').map(value).flat_map(|six| (0..6).rev().map(move |n| six >> n & 1));
    let bits: Vec<u8> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

fn receives(client: Client, place: &Place) {
    if !has(client.tool, place) {
        return;
    }
    let node = place.start();
    let address = node.mqtt.to_string();
    for (version, qos) in [("3.1", "1"), ("3.1.1", "0"), ("3.1.1", "2"), ("5", "1")] {
        let mut program = client.subscribe(&[&address, version, "to/+", qos, "20"]);
        let mut publisher = RawClient::connected(&node, V5, "publisher");
        for number in 0..20 {
            publisher.publish_with(&with_properties(number.to_string().as_bytes()));
        }
        for number in 0..20 {
            let message = program.saw("message");
            assert_eq!((message["topic"].as_str().unwrap(), text_of(&message)), ("to/you", number.to_string()));
            assert_eq!((&message["qos"], &message["retain"]), (&json!(u8::from(qos != "0")), &json!(false)));
            let wanted = if version == "5" { properties() } else { json!({}) };
            assert_eq!(without_expiry(&message["properties"]), wanted);
        }
        program.saw("unsuback");
        program.saw("end");
        program.end();
    }
}

fn with_properties(payload: &[u8]) -> millrace::mqtt::Publish<'_> {
    let mut message = publish("to/you", payload);
    message.properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_s: Some(600),
        response_topic: Some("answers"),
        correlation_data: Some(b"\x01\x02"),
        user_properties: UserProperties::Pairs(&[("k", "1"), ("k", "2"), ("l", "3")]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    };
    message
}

/// The same without the expiry, as the scripts take and print them.
fn properties() -> Value {
    json!({
        "PayloadFormatIndicator": 1,
        "ContentType": "text/plain",
        "ResponseTopic": "answers",
        "CorrelationData": "AQI=",
        "UserProperty": [["k", "1"], ["k", "2"], ["l", "3"]],
    })
}

/// Takes the expiry away after a look at it.
fn without_expiry(properties: &Value) -> Value {
    let mut properties = properties.clone();
    let expiry = properties.as_object_mut().unwrap().remove("MessageExpiryInterval");
    if let Some(left_s) = expiry {
        assert!((1..=600).contains(&left_s.as_u64().unwrap()), "{left_s}");
    }
    properties
}

fn publishes(client: Client, place: &Place) {
    if !has(client.tool, place) {
        return;
    }
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "from/#", QoS::ExactlyOnce);
    let address = node.mqtt.to_string();
    let given = properties().to_string();
    for (version, qos) in [("3.1", "1"), ("3.1.1", "0"), ("3.1.1", "2"), ("5", "1"), ("5", "2")] {
        let mut arguments = vec![address.as_str(), version, "from/them", qos, "100"];
        if version == "5" {
            arguments.push(&given);
        }
        let mut program = client.start("publish", &arguments);
        for number in 0..100 {
            let message = subscriber.expect_text("from/them", &number.to_string());
            assert_eq!(message.qos().as_u8().to_string(), qos);
            if version == "5" {
                assert_eq!(message.payload_is_utf8, Some(true));
                assert_eq!(message.content_type.as_deref(), Some("text/plain"));
                assert_eq!(message.response_topic.as_deref(), Some("answers"));
                assert_eq!(message.correlation_data.as_deref(), Some(&[1, 2][..]));
                let pairs = [("k", "1"), ("k", "2"), ("l", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
                assert_eq!(message.user_properties, pairs);
            }
        }
        (0..100).for_each(|_| assert_eq!(program.saw("published")["reason"], 0));
        program.saw("end");
        program.end();
    }
}

fn leaves_its_will(client: Client, place: &Place) {
    if !has(client.tool, place) {
        return;
    }
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in VERSIONS {
        let mut program = client.start("will", &[&node.mqtt.to_string(), version, "wills/theirs"]);
        assert_eq!(subscriber.expect_text("wills/theirs", "gone").qos(), QoS::AtLeastOnce);
        program.end();
    }
}

fn paho_receives_what_was_published(place: &Place) {
    receives(PAHO, place);
}

fn paho_publishes(place: &Place) {
    publishes(PAHO, place);
}

fn paho_leaves_its_will(place: &Place) {
    leaves_its_will(PAHO, place);
}

fn mqttjs_receives_what_was_published(place: &Place) {
    receives(MQTTJS, place);
}

fn mqttjs_publishes(place: &Place) {
    publishes(MQTTJS, place);
}

fn mqttjs_leaves_its_will(place: &Place) {
    leaves_its_will(MQTTJS, place);
}

fn paho_and_mqttjs_talk_to_each_other(place: &Place) {
    if !(has(Tool::Paho, place) && has(Tool::MqttJs, place)) {
        return;
    }
    let node = place.start();
    let address = node.mqtt.to_string();
    for (from, to) in [(PAHO, MQTTJS), (MQTTJS, PAHO)] {
        let mut subscriber = to.subscribe(&[&address, "5", "talk/#", "1", "200"]);
        let mut publisher = from.start("publish", &[&address, "3.1.1", "talk/a", "1", "200"]);
        for number in 0..200 {
            assert_eq!(text_of(&subscriber.saw("message")), number.to_string());
        }
        subscriber.saw("unsuback");
        subscriber.end();
        publisher.end();
    }
}
