//! Where a subscription starts: SUBACK comes after its start is fixed. What is acknowledged after SUBACK is always
//! delivered, what was acknowledged before SUBSCRIBE was sent never is.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{V5, V311, subscribe};
use crate::raw::RawClient;

on_both_journals![
    a_subscription_brings_what_is_published_after_its_suback_and_nothing_older,
    so_it_is_where_the_node_reads_the_partition_already,
    so_it_is_across_nodes,
    so_it_is_for_several_subscribers_at_once,
    a_subscription_in_a_running_stream_begins_once_and_has_no_gap,
    a_replaced_subscription_has_no_gap,
];

const PARTITIONS: (&str, &str) = ("topics.messages.partitions", "4");

/// Publishes before SUBSCRIBE and after SUBACK, many times; between the rounds nobody reads the partition.
fn subscribe_between(publisher_at: &TestNode, subscriber_at: &TestNode, filter_of: impl Fn(&str) -> String) {
    let mut publisher = RawClient::connected(publisher_at, V5, "publisher");
    let mut subscriber = RawClient::connected(subscriber_at, V311, "subscriber");
    for round in 0..60 {
        let topic = format!("start/{}", round % 7);
        let filter = filter_of(&topic);
        publisher.publish(&topic, format!("before {round}"));
        subscriber.subscribe(&filter, QoS::AtLeastOnce);
        publisher.publish(&topic, format!("after {round}"));
        subscriber.expect_text(&topic, &format!("after {round}"));
        subscriber.unsubscribe(&[&filter]);
    }
}

fn a_subscription_brings_what_is_published_after_its_suback_and_nothing_older(place: &Place) {
    let node = place.start_with(&[PARTITIONS]);
    subscribe_between(&node, &node, str::to_owned);
    subscribe_between(&node, &node, |_| "start/#".to_owned());
}

fn so_it_is_where_the_node_reads_the_partition_already(place: &Place) {
    let node = place.start_with(&[PARTITIONS]);
    let mut reader = RawClient::subscribed(&node, V5, "#", QoS::AtMostOnce);
    subscribe_between(&node, &node, str::to_owned);
    // 60 rounds of two.
    (0..120).for_each(|_| drop(reader.expect_message()));
}

fn so_it_is_across_nodes(place: &Place) {
    let nodes = [place.start_with(&[PARTITIONS]), place.start_with(&[PARTITIONS])];
    subscribe_between(&nodes[0], &nodes[1], str::to_owned);
}

fn so_it_is_for_several_subscribers_at_once(place: &Place) {
    let node = place.start_with(&[PARTITIONS]);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for round in 0..10 {
        publisher.publish("many", format!("before {round}"));
        let mut subscribers: Vec<_> =
            (0..20).map(|n| RawClient::connected(&node, V311, &format!("many-{n}"))).collect();
        for subscriber in &mut subscribers {
            subscriber.send(&subscribe(1, "many", QoS::AtLeastOnce));
        }
        for subscriber in &mut subscribers {
            subscriber.expect_suback(1, &[millrace::mqtt::ReasonCode::GrantedQoS1]);
        }
        publisher.publish("many", format!("after {round}"));
        for subscriber in &mut subscribers {
            subscriber.expect_text("many", &format!("after {round}"));
        }
    }
}

/// Numbers without end on one topic, until told to stop; `acked` is how many have been acknowledged.
fn stream(node: &TestNode, acked: &AtomicU32, stop: &AtomicBool) {
    let mut publisher = RawClient::connected(node, V5, "stream");
    while !stop.load(Ordering::SeqCst) {
        let number = acked.load(Ordering::SeqCst);
        publisher.publish("stream", number.to_string());
        acked.store(number + 1, Ordering::SeqCst);
    }
}

/// The number of the next message, which comes before the SUBACK or after it.
fn next_number(subscriber: &mut RawClient, is_acked: &mut bool) -> Option<u32> {
    let frame = subscriber.expect();
    match frame.packet() {
        Packet::SubAck(_) => {
            *is_acked = true;
            None
        }
        Packet::Publish(message) => {
            if let Some(id) = message.delivery.packet_id() {
                subscriber.send(&Packet::PubAck(crate::packets::ack(id)));
            }
            Some(std::str::from_utf8(message.payload).unwrap().parse().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn a_subscription_in_a_running_stream_begins_once_and_has_no_gap(place: &Place) {
    let node = place.start_with(&[PARTITIONS]);
    let (acked, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| stream(&node, &acked, &stop));
        for round in 0..30 {
            let mut subscriber = RawClient::connected(&node, V5, &format!("subscriber-{}", round % 3));
            let acked_before = acked.load(Ordering::SeqCst);
            subscriber.send(&subscribe(1, if round % 2 == 0 { "stream" } else { "#" }, QoS::AtLeastOnce));
            let mut is_acked = false;
            let mut numbers = Vec::new();
            while !is_acked {
                numbers.extend(next_number(&mut subscriber, &mut is_acked));
            }
            // What is published from now on has a number of at least this.
            let from = acked.load(Ordering::SeqCst) + 1;
            while numbers.last().is_none_or(|last| *last < from + 20) {
                numbers.extend(next_number(&mut subscriber, &mut is_acked));
            }
            assert!(numbers[0] >= acked_before, "{} was acknowledged before SUBSCRIBE", numbers[0]);
            assert!(numbers[0] <= from, "{} is the first; {from} was published after SUBACK", numbers[0]);
            let without_gap = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            assert!(without_gap, "a gap, a duplicate or a wrong order: {numbers:?}");
        }
        stop.store(true, Ordering::SeqCst);
    });
}

/// [MQTT-3.8.4-4]
fn a_replaced_subscription_has_no_gap(place: &Place) {
    let node = place.start_with(&[PARTITIONS]);
    let (acked, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|threads| {
        let mut subscriber = RawClient::subscribed(&node, V5, "stream", QoS::AtLeastOnce);
        threads.spawn(|| stream(&node, &acked, &stop));
        let mut next = 0;
        for round in 0..50 {
            subscriber.send(&subscribe(100 + round, "stream", QoS::AtLeastOnce));
            let mut is_acked = false;
            while !is_acked {
                if let Some(number) = next_number(&mut subscriber, &mut is_acked) {
                    assert_eq!(number, next);
                    next += 1;
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}
