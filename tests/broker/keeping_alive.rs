//! PINGREQ and the keep-alive.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, ProtocolVersion, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, connect, publish};
use crate::raw::RawClient;

on_both_journals![
    pingreq_is_answered,
    a_silent_client_is_closed_and_one_that_pings_is_not,
    any_packet_keeps_a_connection_alive,
    what_the_server_sends_keeps_nobody_alive,
    half_a_packet_keeps_nobody_alive,
    without_a_keep_alive_a_client_of_3_stays,
];

/// [MQTT-3.12.4-1]
fn pingreq_is_answered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        (0..10).for_each(|_| client.expect_nothing_before_pingresp());
    }
}

fn kept_alive(node: &TestNode, version: ProtocolVersion, client_id: &str) -> RawClient {
    let mut asked = connect(version, client_id);
    asked.keep_alive_s = 1;
    RawClient::connected_with(node, &asked)
}

/// Pings one client until the other is closed for its silence: the first one must outlive it.
#[track_caller]
fn ping_until_closed(silent: RawClient, mut alive: RawClient, keep: impl Fn(&mut RawClient)) {
    let mut silent = silent;
    std::thread::scope(|threads| {
        let closed = threads.spawn(move || silent.expect_end(ReasonCode::KeepAliveTimeout));
        while !closed.is_finished() {
            keep(&mut alive);
        }
        closed.join().unwrap();
    });
    keep(&mut alive);
    alive.expect_nothing_before_pingresp();
}

/// [MQTT-3.1.2-22]
fn a_silent_client_is_closed_and_one_that_pings_is_not(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let (silent, alive) = (kept_alive(&node, version, "silent"), kept_alive(&node, version, "alive"));
        ping_until_closed(silent, alive, |alive| alive.expect_nothing_before_pingresp());
    }
}

/// [MQTT-3.1.2-20, 3.1.2-22]: not only PINGREQ.
fn any_packet_keeps_a_connection_alive(place: &Place) {
    let node = place.start();
    let (silent, alive) = (kept_alive(&node, V5, "silent"), kept_alive(&node, V5, "alive"));
    ping_until_closed(silent, alive, |alive| alive.publish("a", "x"));
}

/// [MQTT-3.1.2-22]: what counts is what the client sends.
fn what_the_server_sends_keeps_nobody_alive(place: &Place) {
    let node = place.start();
    let mut listener = kept_alive(&node, V5, "listener");
    listener.subscribe("a", QoS::AtMostOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    loop {
        publisher.send_publish(&publish("a", b"x"));
        let frame = listener.expect();
        match frame.packet() {
            Packet::Publish(_) => {}
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, ReasonCode::KeepAliveTimeout);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// [MQTT-3.1.2-22] speaks of control packets; bytes that never become one do not count.
fn half_a_packet_keeps_nobody_alive(place: &Place) {
    let node = place.start();
    let mut half = kept_alive(&node, V5, "half");
    half.send_bytes(&[0x30, 20, 0, 1, b'a']);
    let alive = kept_alive(&node, V5, "alive");
    ping_until_closed(half, alive, |alive| alive.expect_nothing_before_pingresp());
}

/// [MQTT-3.1.2-24 of 3.1.1]: 0 switches it off, and 3.1.1 cannot be told another.
fn without_a_keep_alive_a_client_of_3_stays(place: &Place) {
    let node = place.start();
    let mut forever = RawClient::connected(&node, V311, "forever");
    let (silent, alive) = (kept_alive(&node, V311, "silent"), kept_alive(&node, V311, "alive"));
    ping_until_closed(silent, alive, |alive| alive.expect_nothing_before_pingresp());
    forever.expect_nothing_before_pingresp();
}
