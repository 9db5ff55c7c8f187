//! A subscriber that does not read costs nobody else anything, and loses nothing of QoS 1.

use millrace::mqtt::packet::{Packet, ProtocolVersion, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{V5, V311, ack, publish_1, subscribe};
use crate::raw::RawClient;

on_both_journals![
    a_subscriber_that_stops_reading_holds_up_nobody_and_gets_everything_later,
    several_lagging_subscribers_catch_up_side_by_side,
    a_lagging_subscriber_that_goes_away_is_forgotten,
    a_lagging_subscribers_new_subscription_brings_nothing_older,
    a_socket_that_takes_nothing_is_closed_and_others_go_on,
];

/// Publishes numbered payloads of 500 bytes with QoS 1, a window at a time.
fn publish_numbers(node: &TestNode, topics: &[&str], count: u32) {
    const WINDOW: u32 = 50;
    let mut publisher = RawClient::connected(node, V311, "publisher");
    let mut first = 0;
    while first < count {
        let numbers = first..count.min(first + WINDOW);
        let mut bytes = Vec::new();
        for (number, id) in numbers.clone().zip(1..) {
            let topic = topics[number as usize % topics.len()];
            bytes.extend(publisher.wire(&Packet::Publish(publish_1(id, topic, &numbered(number)))));
        }
        publisher.send_bytes(&bytes);
        numbers.clone().zip(1..).for_each(|(_, id)| publisher.expect_puback(id));
        first = numbers.end;
    }
}

fn numbered(number: u32) -> Vec<u8> {
    let mut payload = vec![b'.'; 500];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload
}

/// All numbers, those of each topic in order, none missing and none twice.
#[track_caller]
fn expect_numbers(subscriber: &mut RawClient, topics: usize, count: u32) {
    let mut next: Vec<usize> = (0..topics).collect();
    for _ in 0..count {
        let message = subscriber.expect_message();
        let number = u32::from_be_bytes(message.payload[..4].try_into().unwrap()) as usize;
        let of_topic = &mut next[number % topics];
        assert_eq!(number, *of_topic, "on {}", message.topic);
        *of_topic += topics;
    }
}

/// The healthy one has everything before the slow one reads its first message.
fn a_subscriber_that_stops_reading_holds_up_nobody_and_gets_everything_later(place: &Place) {
    const COUNT: u32 = 20_000;
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    let topics = ["n/0", "n/1", "n/2", "n/3", "n/4"];
    for version in [V311, V5] {
        let mut slow = RawClient::subscribed(&node, version, "n/+", QoS::AtLeastOnce);
        let mut healthy = RawClient::subscribed(&node, version, "n/#", QoS::AtLeastOnce);
        std::thread::scope(|threads| {
            threads.spawn(|| publish_numbers(&node, &topics, COUNT));
            expect_numbers(&mut healthy, topics.len(), COUNT);
        });
        node.wait_for_metric("millrace_lagging_subscribers", 1.0);
        expect_numbers(&mut slow, topics.len(), COUNT);
        node.wait_for_metric("millrace_lagging_subscribers", 0.0);
        // It is as good as new.
        publish_numbers(&node, &topics, 10);
        expect_numbers(&mut slow, topics.len(), 10);
        expect_numbers(&mut healthy, topics.len(), 10);
    }
}

fn several_lagging_subscribers_catch_up_side_by_side(place: &Place) {
    const COUNT: u32 = 2_000;
    let node = place.start_with(&[("limits.queue_packets_max", "10")]);
    let mut slow: Vec<_> = (0..5).map(|_| RawClient::subscribed(&node, V5, "n/#", QoS::AtLeastOnce)).collect();
    publish_numbers(&node, &["n/0"], COUNT);
    node.wait_for_metric("millrace_lagging_subscribers", 5.0);
    std::thread::scope(|threads| {
        for subscriber in &mut slow {
            threads.spawn(|| expect_numbers(subscriber, 1, COUNT));
        }
        // Meanwhile there is more.
        publish_numbers(&node, &["other"], COUNT);
    });
    node.wait_for_metric("millrace_lagging_subscribers", 0.0);
}

fn a_lagging_subscriber_that_goes_away_is_forgotten(place: &Place) {
    let node = place.start_with(&[("limits.queue_packets_max", "10")]);
    let slow = RawClient::subscribed(&node, V5, "n/#", QoS::AtLeastOnce);
    let mut healthy = RawClient::subscribed(&node, V5, "n/#", QoS::AtLeastOnce);
    std::thread::scope(|threads| {
        threads.spawn(|| publish_numbers(&node, &["n/0"], 500));
        expect_numbers(&mut healthy, 1, 500);
    });
    slow.break_off();
    node.wait_for_metric("millrace_lagging_subscribers", 0.0);
    node.wait_for_metric("millrace_subscriptions", 1.0);
    publish_numbers(&node, &["n/0"], 500);
    expect_numbers(&mut healthy, 1, 500);
}

/// What it missed is read again from the log, but only for the subscriptions that missed it.
fn a_lagging_subscribers_new_subscription_brings_nothing_older(place: &Place) {
    let node = place.start_with(&[("limits.queue_packets_max", "10")]);
    let mut slow = RawClient::subscribed(&node, V5, "n/#", QoS::AtLeastOnce);
    publish_numbers(&node, &["n/0"], 500);
    node.wait_for_metric("millrace_lagging_subscribers", 1.0);
    let mut publisher = RawClient::connected(&node, V5, "late");
    publisher.publish("late", "before");
    slow.send(&subscribe(77, "late", QoS::AtLeastOnce));
    node.wait_for_metric("millrace_packets_sent_total{type=\"suback\"}", 2.0);
    publisher.publish("late", "after");
    let mut late = Vec::new();
    while late.last().is_none_or(|text| text != "after") {
        let frame = slow.expect();
        if let Packet::Publish(message) = frame.packet() {
            if message.topic == "late" {
                late.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            slow.send(&Packet::PubAck(ack(message.delivery.packet_id().unwrap())));
        }
    }
    assert_eq!(late, ["after"]);
}

/// QoS 0 knows no window: what the socket does not take waits, is dropped, and in the end the connection is closed.
fn a_socket_that_takes_nothing_is_closed_and_others_go_on(place: &Place) {
    let node = place.start_with(&[("limits.slow_timeout", "1s")]);
    let stuck = RawClient::subscribed(&node, V311, "n/#", QoS::AtMostOnce);
    let mut healthy = RawClient::subscribed(&node, V311, "n/#", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, ProtocolVersion::V5, "publisher");
    let large = vec![b'x'; 200_000];
    let is_closed = || node.metric("millrace_connections_closed_total{cause=\"slow\"}") > 0.0;
    for _ in 0..2_000 {
        publisher.publish("n/0", &large);
        assert_eq!(healthy.expect_message().payload.len(), large.len());
        if is_closed() {
            break;
        }
    }
    assert!(is_closed());
    drop(stuck);
}
