//! Wills of sessions that outlive their connections, their delay, and nodes that look after wills of others (MQTT5
//! §3.1.2.5, §3.1.3.2.2).

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Connect, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{
    ALL_VERSIONS, V5, V311, V311_AND_V5, connect, disconnect, disconnect_with_expiry, lasting, publish_1, will,
};
use crate::raw::RawClient;

on_both_journals![
    the_will_of_a_lasting_session_is_published_at_the_break_and_once,
    a_normal_disconnect_of_a_lasting_session_takes_its_will_away,
    a_delayed_will_comes_after_its_delay,
    a_delayed_will_comes_when_its_session_ends,
    a_delayed_will_of_a_session_that_ends_with_its_connection_comes_at_once,
    a_reconnect_takes_a_delayed_will_away,
    a_clean_start_publishes_a_delayed_will,
    a_take_over_publishes_a_will_without_delay_once,
    a_take_over_leaves_a_delayed_will_unpublished,
    disconnect_with_will_waits_for_the_delay,
    a_drain_takes_wills_away_for_good,
    a_drain_takes_wills_of_clients_away_that_are_elsewhere_at_once,
    a_disconnect_takes_the_will_of_a_client_away_that_is_elsewhere_at_once,
    another_node_publishes_the_will_of_a_session_whose_node_is_gone,
    wills_of_many_clients_that_break_at_once_come_once_each,
];

/// An hour.
const LONG_S: u32 = 3_600;

/// A CONNECT of MQTT 5 with a session that lasts and a will on `wills/…` with the client id as payload.
fn with_will(client_id: &str, delay_s: u32, expiry_s: u32) -> Connect<'_> {
    let mut asked = lasting(V5, client_id);
    asked.properties.session_expiry_s = Some(expiry_s);
    let mut last = will("wills", client_id.as_bytes());
    last.delay_s = Some(delay_s);
    asked.will = Some(last);
    asked
}

fn watcher(node: &TestNode) -> RawClient {
    RawClient::subscribed(node, V5, "wills/#", QoS::AtLeastOnce)
}

/// Every will so far, by the log, sorted.
fn wills(place: &Place) -> Vec<String> {
    let stored = place.read(&place.default_topic()).into_iter().filter(|record| record.key.as_deref() == Some("wills"));
    let mut wills: Vec<String> = stored.map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect();
    wills.sort();
    wills
}

/// The will of a client that breaks off now with a delay of a second: every will that was due before it came before it.
#[track_caller]
fn wait_for_a_later_will(node: &TestNode, watcher: &mut RawClient, client_id: &str) {
    RawClient::resumed(node, &with_will(client_id, 1, LONG_S), false).break_off();
    watcher.expect_text("wills", client_id);
}

/// [MQTT-3.1.2-8]: the session goes on without it.
fn the_will_of_a_lasting_session_is_published_at_the_break_and_once(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    for version in ALL_VERSIONS {
        let client_id = format!("mortal-{version:?}");
        let mut asked = lasting(version, &client_id);
        asked.will = Some(will("wills", client_id.as_bytes()));
        RawClient::connected_with(&nodes[1], &asked).break_off();
        watcher.expect_text("wills", &client_id);
        asked.will = None;
        RawClient::connected_with(&nodes[0], &asked).break_off();
        RawClient::connected_with(&nodes[1], &asked).leave();
    }
    RawClient::connected(&nodes[1], V311, "publisher").publish("wills", "~marker");
    watcher.expect_text("wills", "~marker");
    assert_eq!(wills(place).len(), ALL_VERSIONS.len() + 1);
}

/// [MQTT-3.1.2-10, 3.14.4-3]: also when the client comes back, and to another node.
fn a_normal_disconnect_of_a_lasting_session_takes_its_will_away(place: &Place) {
    let nodes = [place.start(), place.start()];
    for version in ALL_VERSIONS {
        let client_id = format!("mortal-{version:?}");
        let mut asked = lasting(version, &client_id);
        for round in 0..4 {
            asked.will = Some(will("wills", client_id.as_bytes()));
            RawClient::connected_with(&nodes[round % 2], &asked).leave();
            nodes[round % 2].write_down();
        }
        asked.will = None;
        RawClient::connected_with(&nodes[0], &asked).leave();
    }
    assert_eq!(wills(place), [""; 0]);
}

/// MQTT5 §3.1.3.2.2
fn a_delayed_will_comes_after_its_delay(place: &Place) {
    let node = place.start();
    let mut watcher = watcher(&node);
    let mut client = RawClient::resumed(&node, &with_will("mortal", 1, LONG_S), false);
    client.subscribe("wills", QoS::AtLeastOnce);
    client.vanish(&node);
    // Not before: this one is not delayed.
    RawClient::resumed(&node, &with_will("hasty", 0, LONG_S), false).break_off();
    watcher.expect_text("wills", "hasty");
    watcher.expect_text("wills", "mortal");
    // The session goes on, and gets its own will, too.
    let mut client = RawClient::resumed(&node, &lasting(V5, "mortal"), true);
    client.expect_text("wills", "hasty");
    client.expect_text("wills", "mortal");
    assert_eq!(wills(place), ["hasty", "mortal"]);
}

/// MQTT5 §3.1.3.2.2: whichever comes first.
fn a_delayed_will_comes_when_its_session_ends(place: &Place) {
    let node = place.start();
    let mut watcher = watcher(&node);
    RawClient::resumed(&node, &with_will("mortal", LONG_S, 1), false).break_off();
    watcher.expect_text("wills", "mortal");
    RawClient::resumed(&node, &lasting(V5, "mortal"), false).leave();
    assert_eq!(wills(place), ["mortal"]);
}

/// MQTT5 §3.1.3.2.2
fn a_delayed_will_of_a_session_that_ends_with_its_connection_comes_at_once(place: &Place) {
    let node = place.start();
    let mut watcher = watcher(&node);
    RawClient::resumed(&node, &with_will("mortal", LONG_S, 0), false).break_off();
    watcher.expect_text("wills", "mortal");
    // An expiry that DISCONNECT took away ends it as well; the reason says that the will is wanted.
    let mut client = RawClient::resumed(&node, &with_will("other", LONG_S, LONG_S), false);
    client.send(&disconnect_with_expiry(0));
    client.expect_closed();
    let mut client = RawClient::resumed(&node, &with_will("third", LONG_S, 0), false);
    client.send(&disconnect(ReasonCode::DisconnectWithWill));
    client.expect_closed();
    watcher.expect_text("wills", "third");
    assert_eq!(wills(place), ["mortal", "third"]);
}

/// [MQTT-3.1.3-9]
fn a_reconnect_takes_a_delayed_will_away(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    for round in 0..4 {
        let client_id = format!("mortal-{round}");
        RawClient::resumed(&nodes[0], &with_will(&client_id, 1, LONG_S), false).vanish(&nodes[0]);
        // Without a will, and so nothing is left of the old one.
        RawClient::resumed(&nodes[round % 2], &lasting(V5, &client_id), true).vanish(&nodes[round % 2]);
    }
    wait_for_a_later_will(&nodes[1], &mut watcher, "later");
    assert_eq!(wills(place), ["later"]);
}

/// [MQTT-3.1.2-4] and §3.1.3.2.2: the session ended.
fn a_clean_start_publishes_a_delayed_will(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    for (round, node) in nodes.iter().enumerate() {
        let client_id = format!("mortal-{round}");
        RawClient::resumed(&nodes[0], &with_will(&client_id, LONG_S, LONG_S), false).vanish(&nodes[0]);
        let client = RawClient::resumed(node, &connect(V5, &client_id), false);
        watcher.expect_text("wills", &client_id);
        client.leave();
    }
    assert_eq!(wills(place), ["mortal-0", "mortal-1"]);
}

/// MQTT5 §3.1.3.2.2: the older connection is closed without a DISCONNECT of its client.
fn a_take_over_publishes_a_will_without_delay_once(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    let mut wanted = Vec::new();
    for (version, lasts) in V311_AND_V5.into_iter().flat_map(|version| [(version, true), (version, false)]) {
        for node in &nodes {
            let client_id = format!("mortal-{version:?}-{lasts}-{}", node.mqtt.port());
            let mut asked = if lasts { lasting(version, &client_id) } else { connect(version, &client_id) };
            asked.will = Some(will("wills", client_id.as_bytes()));
            let mut older = RawClient::resumed(&nodes[0], &asked, false);
            asked.will = None;
            let newer = RawClient::resumed(node, &asked, lasts);
            older.expect_end(ReasonCode::SessionTakenOver);
            watcher.expect_text("wills", &client_id);
            newer.leave();
            wanted.push(client_id.clone());
        }
    }
    wait_for_a_later_will(&nodes[1], &mut watcher, "~later");
    wanted.push("~later".to_owned());
    wanted.sort();
    assert_eq!(wills(place), wanted);
}

/// [MQTT-3.1.3-9]: a new connection to the session came before the delay had passed.
fn a_take_over_leaves_a_delayed_will_unpublished(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    for (round, node) in nodes.iter().enumerate() {
        let client_id = format!("mortal-{round}");
        let mut older = RawClient::resumed(&nodes[0], &with_will(&client_id, 1, LONG_S), false);
        let newer = RawClient::resumed(node, &lasting(V5, &client_id), true);
        older.expect_end(ReasonCode::SessionTakenOver);
        newer.leave();
    }
    wait_for_a_later_will(&nodes[1], &mut watcher, "later");
    assert_eq!(wills(place), ["later"]);
}

/// [MQTT-3.14.4-3], §3.1.3.2.2
fn disconnect_with_will_waits_for_the_delay(place: &Place) {
    let node = place.start();
    let mut watcher = watcher(&node);
    let mut client = RawClient::resumed(&node, &with_will("mortal", 1, LONG_S), false);
    client.send(&disconnect(ReasonCode::DisconnectWithWill));
    client.expect_closed();
    RawClient::resumed(&node, &with_will("hasty", 0, LONG_S), false).break_off();
    watcher.expect_text("wills", "hasty");
    watcher.expect_text("wills", "mortal");
}

/// The clients go on elsewhere: they did not die, neither now nor when the delay has passed.
fn a_drain_takes_wills_away_for_good(place: &Place) {
    let (observer, node) = (place.start(), place.start());
    let mut watcher = watcher(&observer);
    let mut clients = [0, 1, LONG_S].map(|delay_s| {
        let client_id = format!("mortal-{delay_s}");
        RawClient::resumed(&node, &with_will(&client_id, delay_s, LONG_S), false)
    });
    node.drain();
    for client in &mut clients {
        client.expect_end(ReasonCode::ServerShuttingDown);
    }
    node.ended();
    wait_for_a_later_will(&observer, &mut watcher, "later");
    // One that came back is not reminded of it.
    let asked = lasting(V5, "mortal-1");
    RawClient::resumed(&observer, &asked, true).leave();
    assert_eq!(wills(place), ["later"]);
}

/// They are at the next node before the log says what became of them at the last one.
fn a_drain_takes_wills_of_clients_away_that_are_elsewhere_at_once(place: &Place) {
    let (next, node) = (place.start(), place.start());
    let ids: Vec<String> = (0..50).map(|number| format!("mortal-{number}")).collect();
    let clients: Vec<_> = ids.iter().map(|id| RawClient::resumed(&node, &with_will(id, 0, LONG_S), false)).collect();
    node.drain();
    std::thread::scope(|threads| {
        for (mut client, id) in clients.into_iter().zip(&ids) {
            let next = &next;
            threads.spawn(move || {
                client.expect_end(ReasonCode::ServerShuttingDown);
                RawClient::resumed(next, &lasting(V5, id), true).leave();
            });
        }
    });
    node.ended();
    next.write_down();
    assert_eq!(wills(place), [""; 0]);
}

/// [MQTT-3.1.2-10, 3.14.4-3]: DISCONNECT came before the next CONNECT, whatever the log says.
fn a_disconnect_takes_the_will_of_a_client_away_that_is_elsewhere_at_once(place: &Place) {
    let nodes = [place.start(), place.start()];
    for (round, lasts) in (0..50).flat_map(|round| [(round, true), (round, false)]) {
        let id = format!("mortal-{lasts}");
        let expiry_s = if lasts { LONG_S } else { 0 };
        RawClient::connected_with(&nodes[round % 2], &with_will(&id, 0, expiry_s)).leave();
    }
    nodes.iter().for_each(TestNode::write_down);
    assert_eq!(wills(place), [""; 0]);
}

/// The client broke off before its node left: the will is due, whoever is there by then.
fn another_node_publishes_the_will_of_a_session_whose_node_is_gone(place: &Place) {
    let (observer, node) = (place.start(), place.start());
    let mut watcher = watcher(&observer);
    RawClient::resumed(&node, &with_will("delayed", 2, LONG_S), false).vanish(&node);
    RawClient::resumed(&node, &with_will("expiring", LONG_S, 2), false).vanish(&node);
    node.drain();
    node.ended();
    let mut came = [watcher.expect_message(), watcher.expect_message()].map(|message| message.text().to_owned());
    came.sort();
    assert_eq!(came, ["delayed", "expiring"]);
    RawClient::resumed(&observer, &lasting(V5, "delayed"), true).leave();
    RawClient::resumed(&observer, &lasting(V5, "expiring"), false).leave();
    assert_eq!(wills(place), ["delayed", "expiring"]);
}

/// Some at once, some delayed, some on a session that ends, some of clients that are back at once.
fn wills_of_many_clients_that_break_at_once_come_once_each(place: &Place) {
    const CLIENTS: usize = 40;
    let nodes = [place.start(), place.start()];
    let mut watcher = watcher(&nodes[0]);
    let ids: Vec<String> = (0..CLIENTS).map(|number| format!("mortal-{number:02}")).collect();
    let kinds = [(0, LONG_S), (1, LONG_S), (LONG_S, 1), (LONG_S, LONG_S)];
    let asked = |number: usize| with_will(&ids[number], kinds[number % 4].0, kinds[number % 4].1);
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| RawClient::resumed(&nodes[number % 2], &asked(number), false)).collect();
    for (number, mut client) in clients.into_iter().enumerate() {
        client.send_publish(&publish_1(1, "a", b"on its way"));
        if number % 4 == 3 {
            // Its will waits for an hour, and is taken away.
            client.break_off();
            RawClient::connected_with(&nodes[number / 2 % 2], &lasting(V5, &ids[number])).leave();
        } else {
            client.break_off();
        }
    }
    let wanted: Vec<String> = (0..CLIENTS).filter(|number| number % 4 != 3).map(|number| ids[number].clone()).collect();
    let mut came: Vec<String> = wanted.iter().map(|_| watcher.expect_message().text().to_owned()).collect();
    came.sort();
    assert_eq!(came, wanted);
    wait_for_a_later_will(&nodes[0], &mut watcher, "~later");
    assert_eq!(wills(place).len(), wanted.len() + 1);
}
