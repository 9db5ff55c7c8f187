//! The drain: unready → clients are sent away → appends are waited for → the end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::ScopedJoinHandle;

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::{Place, TestNode};
use crate::http::get;
use crate::packets::{ALL_VERSIONS, V5, V311, connect, publish_1, will};
use crate::process::Process;
use crate::raw::RawClient;

on_both_journals![
    sigterm_sends_clients_away_and_exits_with_0,
    a_second_signal_ends_at_once,
    a_draining_node_is_not_ready_and_still_accepts,
    after_the_grace_no_connection_is_accepted,
    own_shutdown_fires_no_wills,
    what_was_acknowledged_before_the_end_is_in_the_log,
    a_connection_that_has_not_sent_connect_does_not_hold_up_the_end,
];

fn sigterm_sends_clients_away_and_exits_with_0(place: &Place) {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(place, &[]);
        let mut clients = ALL_VERSIONS.map(|version| {
            let mut client = RawClient::open_at(process.mqtt, version);
            client.send_connect(&connect(version, &format!("client-{version:?}")));
            client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
            client
        });
        assert_eq!(get(process.ops, "/readyz").0, 200);
        process.signal(signal);
        for client in &mut clients {
            client.expect_end(ReasonCode::ServerShuttingDown);
        }
        process.program.end();
    }
}

/// Somebody is in a hurry: the grace is not waited for.
fn a_second_signal_ends_at_once(place: &Place) {
    let mut process = Process::start(place, &[("shutdown.accept_grace", "1h")]);
    process.signal("TERM");
    while get(process.ops, "/readyz").0 == 200 {}
    process.signal("TERM");
    process.program.end();
}

fn a_draining_node_is_not_ready_and_still_accepts(place: &Place) {
    let mut process = Process::start(place, &[("shutdown.accept_grace", "1h")]);
    process.signal("TERM");
    while get(process.ops, "/readyz").0 == 200 {}
    assert_eq!(get(process.ops, "/readyz").0, 503);
    assert_eq!(get(process.ops, "/livez").0, 200);
    let mut late = RawClient::open_at(process.mqtt, V5);
    late.send_connect(&connect(V5, "late"));
    late.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
    late.publish("a", "x");
    process.signal("TERM");
    process.program.end();
}

/// Clients that are sent away must not come back to the node that sends them.
fn after_the_grace_no_connection_is_accepted(place: &Place) {
    // One client a second: the drain goes on until all of them are gone.
    let node = place.start_with(&[("shutdown.disconnects_per_second", "1")]);
    let mut clients: Vec<_> = (0..3).map(|n| RawClient::connected(&node, V5, &format!("client-{n}"))).collect();
    node.drain();
    clients[0].expect_end(ReasonCode::ServerShuttingDown);
    assert_eq!(get(node.ops, "/readyz").0, 503);
    assert!(RawClient::is_refused_at(node.mqtt), "a connection was accepted by a node that sends its clients away");
    for client in &mut clients[1..] {
        client.expect_end(ReasonCode::ServerShuttingDown);
    }
    node.ended();
}

/// The client goes on elsewhere: it did not die.
fn own_shutdown_fires_no_wills(place: &Place) {
    let observer = place.start();
    let mut subscriber = RawClient::subscribed(&observer, V5, "#", QoS::AtLeastOnce);
    let node = place.start();
    let mut clients = ALL_VERSIONS.map(|version| {
        let client_id = format!("mortal-{version:?}");
        let mut asked = connect(version, &client_id);
        asked.will = Some(will("wills/mortal", b"gone"));
        RawClient::connected_with(&node, &asked)
    });
    node.drain();
    for client in &mut clients {
        client.expect_end(ReasonCode::ServerShuttingDown);
    }
    node.ended();
    RawClient::connected(&observer, V311, "publisher").publish("marker", "m");
    subscriber.expect_text("marker", "m");
}

/// Publishers that do not stop until they are sent away.
fn what_was_acknowledged_before_the_end_is_in_the_log(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "4")]);
    let acked = AtomicU32::new(0);
    std::thread::scope(|threads| {
        let publishers: Vec<_> = (0..3)
            .map(|n| {
                threads.spawn({
                    let (node, acked) = (&node, &acked);
                    move || publish_until_sent_away(node, n, acked)
                })
            })
            .collect();
        while acked.load(Ordering::SeqCst) < 300 && !publishers.iter().any(ScopedJoinHandle::is_finished) {
            std::thread::yield_now();
        }
        node.drain();
        let acked: Vec<Vec<String>> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let records: std::collections::BTreeSet<String> = place
            .read(&place.default_topic())
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
            .collect();
        for text in acked.iter().flatten() {
            assert!(records.contains(text), "{text} was acknowledged and is not in the log");
        }
    });
    node.ended();
}

/// What was acknowledged, in order.
fn publish_until_sent_away(node: &TestNode, publisher: u32, acked: &AtomicU32) -> Vec<String> {
    const WINDOW: u16 = 20;
    let mut client = RawClient::connected(node, V5, &format!("publisher-{publisher}"));
    let mut texts = Vec::new();
    for round in 0.. {
        let round_texts: Vec<String> = (0..WINDOW).map(|n| format!("{publisher} {round} {n}")).collect();
        let topic = |n: u16| format!("t/{}", n % 5);
        let packets = (1..=WINDOW).zip(&round_texts);
        let bytes: Vec<u8> = packets
            .flat_map(|(id, text)| client.wire(&Packet::Publish(publish_1(id, &topic(id), text.as_bytes()))))
            .collect();
        client.try_send_bytes(&bytes);
        for text in round_texts {
            let frame = client.expect();
            match frame.packet() {
                Packet::PubAck(_) => {
                    texts.push(text);
                    acked.fetch_add(1, Ordering::SeqCst);
                }
                Packet::Disconnect(disconnect) => {
                    assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown);
                    return texts;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    texts
}

fn a_connection_that_has_not_sent_connect_does_not_hold_up_the_end(place: &Place) {
    let node = place.start_with(&[("shutdown.flush_timeout", "1h"), ("limits.connect_timeout", "1h")]);
    let mut silent = RawClient::open(&node, V311);
    node.wait_for_metric("millrace_connections_open", 1.0);
    node.drain();
    silent.expect_closed();
    node.ended();
}
