//! What a connection costs while nothing happens on it.

use millrace::mqtt::packet::QoS;

use crate::fixture::Place;
use crate::http::value_of;
use crate::packets::{V5, connect};
use crate::process::Process;
use crate::raw::RawClient;

on_both_journals![an_idle_connection_holds_no_buffers];

/// In a process of its own, whose memory nobody else uses. One buffer of a socket's read would be four times the bound.
fn an_idle_connection_holds_no_buffers(place: &Place) {
    const CONNECTIONS: u32 = 800;
    const BYTES_MAX: f64 = 16.0 * 1024.0;
    let process = Process::start(place, &[]);
    let resident = || value_of(process.ops, "process_resident_memory_bytes");
    // What a process takes once is no connection's.
    let mut clients = vec![busy_once(&process, 0)];
    let before = resident();
    clients.extend((1..=CONNECTIONS).map(|number| busy_once(&process, number)));
    let each = (resident() - before) / f64::from(CONNECTIONS);
    println!("an idle connection takes {each} bytes");
    assert!(each < BYTES_MAX, "an idle connection takes {each} bytes");
    for client in &mut clients {
        client.expect_nothing_before_pingresp();
    }
}

/// A client that has published and received, also a packet in two parts, and now does nothing.
fn busy_once(process: &Process, number: u32) -> RawClient {
    let name = format!("client-{number}");
    let mut client = RawClient::open_at(process.mqtt, V5);
    client.send_connect(&connect(V5, &name));
    client.expect_connack(|connack| assert!(!connack.reason.is_error()));
    client.subscribe(&name, QoS::AtMostOnce);
    let publish = client.wire(&millrace::mqtt::Packet::Publish(crate::packets::publish(&name, &[b'x'; 200])));
    let (first, second) = publish.split_at(100);
    client.send_bytes(first);
    client.send_bytes(second);
    assert_eq!(client.expect_message().payload.len(), 200);
    client
}
