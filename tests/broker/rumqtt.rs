//! rumqttc, a client that others wrote, as a library: 3.1.1 and 5.

use std::time::Duration;

use rumqttc::{Event, Packet, v5};

use crate::fixture::{Place, TestNode};

on_both_journals![
    rumqttc_of_3_1_1_publishes_and_receives,
    rumqttc_of_5_publishes_and_receives,
    rumqttc_leaves_its_will
];

const COUNT: u32 = 300;
/// An event that has not come by then does not come.
const LIMIT: Duration = Duration::from_secs(10);
/// Requests that may wait in the client.
const QUEUE: usize = 1_000;

fn host(node: &TestNode) -> String {
    node.mqtt.ip().to_string()
}

/// Its own messages come back, in order, and every one of them is acknowledged.
fn rumqttc_of_3_1_1_publishes_and_receives(place: &Place) {
    let node = place.start();
    let options = rumqttc::MqttOptions::new("rumqttc", host(&node), node.mqtt.port());
    let (client, mut connection) = rumqttc::Client::new(options, QUEUE);
    client.subscribe("echo/+", rumqttc::QoS::AtLeastOnce).unwrap();
    let (mut acked, mut next) = (0, 0);
    while acked < COUNT || next < COUNT {
        match connection.recv_timeout(LIMIT).unwrap().unwrap() {
            Event::Incoming(Packet::SubAck(_)) => {
                for number in 0..COUNT {
                    let qos = rumqttc::QoS::AtLeastOnce;
                    client.publish(format!("echo/{}", number % 2), qos, false, number.to_string()).unwrap();
                }
            }
            Event::Incoming(Packet::PubAck(_)) => acked += 1,
            Event::Incoming(Packet::Publish(message)) => {
                assert_eq!(message.payload, next.to_string());
                assert_eq!((message.qos, message.topic), (rumqttc::QoS::AtLeastOnce, format!("echo/{}", next % 2)));
                next += 1;
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
    client.disconnect().unwrap();
}

fn rumqttc_of_5_publishes_and_receives(place: &Place) {
    let node = place.start();
    let options = v5::MqttOptions::new("rumqttc", host(&node), node.mqtt.port());
    let (client, mut connection) = v5::Client::new(options, QUEUE);
    let properties = v5::mqttbytes::v5::SubscribeProperties { id: Some(7), user_properties: vec![] };
    client.subscribe_with_properties("echo/+", v5::mqttbytes::QoS::AtLeastOnce, properties).unwrap();
    let sent = v5::mqttbytes::v5::PublishProperties {
        payload_format_indicator: Some(1),
        response_topic: Some("answers".to_owned()),
        correlation_data: Some(bytes::Bytes::from_static(&[0, 255])),
        user_properties: vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())],
        content_type: Some("text/plain".to_owned()),
        ..v5::mqttbytes::v5::PublishProperties::default()
    };
    let received = v5::mqttbytes::v5::PublishProperties { subscription_identifiers: vec![7], ..sent.clone() };
    let (mut acked, mut next) = (0, 0);
    while acked < COUNT || next < COUNT {
        match connection.recv_timeout(LIMIT).unwrap().unwrap() {
            v5::Event::Incoming(v5::Incoming::SubAck(_)) => {
                for number in 0..COUNT {
                    let (qos, properties) = (v5::mqttbytes::QoS::AtLeastOnce, sent.clone());
                    let payload = number.to_string();
                    client.publish_with_properties("echo/a", qos, false, payload, properties).unwrap();
                }
            }
            v5::Event::Incoming(v5::Incoming::PubAck(_)) => acked += 1,
            v5::Event::Incoming(v5::Incoming::Publish(message)) => {
                assert_eq!(message.payload, next.to_string());
                assert_eq!(message.properties.as_ref(), Some(&received));
                next += 1;
            }
            v5::Event::Incoming(_) | v5::Event::Outgoing(_) => {}
        }
    }
    client.disconnect().unwrap();
}

fn rumqttc_leaves_its_will(place: &Place) {
    use crate::packets::V5;
    use crate::raw::RawClient;
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", millrace::mqtt::QoS::AtLeastOnce);
    let mut options = rumqttc::MqttOptions::new("mortal", host(&node), node.mqtt.port());
    options.set_last_will(rumqttc::LastWill::new("wills/rumqttc", "gone", rumqttc::QoS::AtLeastOnce, false));
    let (client, mut connection) = rumqttc::Client::new(options, QUEUE);
    while !matches!(connection.recv_timeout(LIMIT).unwrap().unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
    drop((client, connection));
    subscriber.expect_text("wills/rumqttc", "gone");
}
