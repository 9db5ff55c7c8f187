//! The port of `/metrics`, `/livez` and `/readyz`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use millrace::clock;
use millrace::mqtt::packet::QoS;

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, publish};
use crate::raw::{LIMIT, RawClient};

on_both_journals![
    a_node_is_live_and_ready_once_it_has_started,
    metrics_count_what_went_through,
    connections_are_counted_by_how_they_ended,
    the_mqtt_port_does_not_speak_http,
];

/// Status and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: millrace\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// The value of a series, named as in `/metrics`.
#[track_caller]
pub(crate) fn value_of(ops: SocketAddr, series: &str) -> f64 {
    let (status, body) = get(ops, "/metrics");
    assert_eq!(status, 200);
    let value = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} is missing in\n{body}"))
}

impl TestNode {
    /// The value of a series, named as in `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        value_of(self.ops, series)
    }

    /// Waits until a series has this value.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, series: &str, wanted: f64) {
        let give_up = clock::now() + LIMIT;
        loop {
            let value = self.metric(series);
            if (value - wanted).abs() < f64::EPSILON {
                return;
            }
            assert!(clock::now() < give_up, "{series} is {value} and does not become {wanted}");
            std::thread::yield_now();
        }
    }
}

fn a_node_is_live_and_ready_once_it_has_started(place: &Place) {
    let node = place.start();
    assert_eq!(get(node.ops, "/livez").0, 200);
    assert_eq!(get(node.ops, "/readyz").0, 200);
    assert_eq!(get(node.ops, "/elsewhere").0, 404);
}

fn metrics_count_what_went_through(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for _ in 0..3 {
        publisher.publish("a", "x");
        subscriber.expect_text("a", "x");
    }
    publisher.send_publish(&publish("a", b"x"));
    subscriber.expect_text("a", "x");
    publisher.expect_nothing_before_pingresp();
    let written = format!("millrace_appends_total{{outcome=\"written\",topic=\"{}\"}}", place.default_topic());
    for (series, value) in [
        ("millrace_connections_open", 2.0),
        ("millrace_connections_accepted_total", 2.0),
        ("millrace_subscriptions", 1.0),
        ("millrace_publishes_received_total{qos=\"0\"}", 1.0),
        ("millrace_publishes_received_total{qos=\"1\"}", 3.0),
        ("millrace_publishes_delivered_total{qos=\"0\"}", 1.0),
        ("millrace_publishes_delivered_total{qos=\"1\"}", 3.0),
        ("millrace_packets_received_total{type=\"connect\"}", 2.0),
        ("millrace_packets_sent_total{type=\"puback\"}", 3.0),
        ("millrace_packets_received_total{type=\"pingreq\"}", 1.0),
        ("millrace_tail_records_wanted_total", 4.0),
        ("millrace_malformed_packets_total", 0.0),
        ("millrace_task_panics_total", 0.0),
        (written.as_str(), 4.0),
    ] {
        node.wait_for_metric(series, value);
    }
}

fn connections_are_counted_by_how_they_ended(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut polite = RawClient::connected(&node, version, "polite");
        polite.send(&crate::packets::disconnect(millrace::mqtt::ReasonCode::Success));
        polite.expect_closed();
        RawClient::connected(&node, version, "gone").break_off();
        let mut broken = RawClient::connected(&node, version, "broken");
        broken.send_bytes(&[0, 0]);
        broken.expect_end(millrace::mqtt::ReasonCode::MalformedPacket);
        let mut older = RawClient::connected(&node, version, "twice");
        RawClient::connected(&node, version, "twice").break_off();
        older.expect_end(millrace::mqtt::ReasonCode::SessionTakenOver);
    }
    for (series, value) in [
        ("millrace_connections_closed_total{cause=\"disconnect\"}", 3.0),
        ("millrace_connections_closed_total{cause=\"lost\"}", 6.0),
        ("millrace_connections_closed_total{cause=\"protocol\"}", 3.0),
        ("millrace_connections_closed_total{cause=\"taken_over\"}", 3.0),
        ("millrace_takeovers_total", 3.0),
        ("millrace_malformed_packets_total", 3.0),
        ("millrace_connections_open", 0.0),
    ] {
        node.wait_for_metric(series, value);
    }
}

/// A browser or a probe at the wrong port does no harm.
fn the_mqtt_port_does_not_speak_http(place: &Place) {
    let node = place.start();
    let mut browser = RawClient::open(&node, V311);
    browser.try_send_bytes(b"GET /metrics HTTP/1.1\r\nHost: millrace\r\n\r\n");
    browser.expect_closed();
    RawClient::connected(&node, V311, "a").expect_nothing_before_pingresp();
}
