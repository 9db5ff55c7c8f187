//! Two nodes on one log: a session goes on wherever its client comes back.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, Publish, QoS, SubscribeOptions};

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, connect, lasting, publish, publish_2};
use crate::raw::{Message, RawClient};

on_both_journals![
    a_take_over_tells_the_older_connection_at_the_other_node,
    a_message_reaches_subscribers_of_every_node,
    a_session_goes_on_at_the_other_node,
    subscribe_options_go_along,
    unacknowledged_messages_come_again_at_the_other_node_with_their_ids,
    nothing_is_lost_when_a_live_connection_is_taken_over,
    qos_2_deliveries_go_on_at_the_other_node,
    qos_2_publishes_go_on_at_the_other_node,
    pubrel_may_be_the_first_packet_at_the_other_node,
    qos_2_publishes_of_a_client_that_wanders_are_one_record_each,
    a_clean_start_at_the_other_node_ends_the_session,
    disconnect_ends_a_session_at_every_node,
    a_session_outlives_all_nodes,
    after_a_drain_the_next_node_goes_on_at_once,
    a_client_id_that_is_fought_over_is_left_alone_for_a_while,
];

fn records(place: &Place) -> usize {
    place.read(&place.default_topic()).len()
}

fn id_of(message: &Message) -> u16 {
    message.delivery.packet_id().unwrap().get()
}

/// [MQTT-3.1.4-3]
fn a_take_over_tells_the_older_connection_at_the_other_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    for version in ALL_VERSIONS {
        for lasts in [false, true] {
            let client_id = format!("one-{version:?}-{lasts}");
            let asked = if lasts { lasting(version, &client_id) } else { connect(version, &client_id) };
            let mut older = RawClient::connected_with(&nodes[0], &asked);
            for round in 1..4 {
                if !lasts {
                    // CONNACK did not wait for its claim, and the later claim wins.
                    nodes[(round + 1) % 2].write_down();
                }
                let mut newer = RawClient::connected_with(&nodes[round % 2], &asked);
                older.expect_end(ReasonCode::SessionTakenOver);
                newer.expect_nothing_before_pingresp();
                older = newer;
            }
        }
    }
}

/// Nodes know of each other's messages from the log alone.
fn a_message_reaches_subscribers_of_every_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut subscribers = nodes.each_ref().map(|node| RawClient::subscribed(node, V5, "a", QoS::ExactlyOnce));
    for (node, text) in nodes.iter().zip(["first", "second"]) {
        let mut publisher = RawClient::connected(node, V311, &format!("publisher-{text}"));
        publisher.publish_exactly_once("a", text);
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.expect_text("a", text).qos(), QoS::ExactlyOnce);
        }
    }
}

/// [MQTT-3.2.2-3, 4.1.0-1]
fn a_session_goes_on_at_the_other_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    for version in V311_AND_V5 {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut publisher = RawClient::connected(&nodes[0], V5, "publisher");
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        client.subscribe("a", QoS::ExactlyOnce);
        for round in 0..6 {
            client.leave();
            nodes[round % 2].write_down();
            let (twice, once) = (format!("twice {round}"), format!("once {round}"));
            publisher.publish("a", &twice);
            publisher.publish_exactly_once("a", &once);
            client = RawClient::resumed(&nodes[(round + 1) % 2], &asked, true);
            assert_eq!(client.expect_text("a", &twice).qos(), QoS::AtLeastOnce);
            assert_eq!(client.expect_text("a", &once).qos(), QoS::ExactlyOnce);
            client.expect_nothing_before_pingresp();
        }
        client.leave();
    }
}

/// MQTT5 §3.8.3.1, §3.8.2.1.2: No Local, Retain As Published, Subscription Identifier.
fn subscribe_options_go_along(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut client = RawClient::resumed(&nodes[0], &lasting(V5, "wanderer"), false);
    let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
    client.subscribe_to(Some(7), "other/+", SubscribeOptions { no_local: true, ..options });
    client.subscribe_to(Some(8), "kept/+", SubscribeOptions { retain_as_published: true, ..options });
    client.subscribe_to(None, "plain/+", options);
    client.leave();
    let mut client = RawClient::resumed(&nodes[1], &lasting(V5, "wanderer"), true);
    client.publish("other/a", "own");
    let mut publisher = RawClient::connected(&nodes[0], V5, "publisher");
    publisher.publish("other/a", "theirs");
    for topic in ["kept/a", "plain/a"] {
        publisher.publish_with(&Publish { retain: true, ..publish(topic, b"x") });
    }
    assert_eq!(client.expect_text("other/a", "theirs").subscription_ids, [7]);
    let message = client.expect_text("kept/a", "x");
    assert_eq!((message.subscription_ids, message.retain), (vec![8], true));
    let message = client.expect_text("plain/a", "x");
    assert_eq!((message.subscription_ids, message.retain), (vec![], false));
}

/// [MQTT-4.4.0-1, 4.6.0-1]
fn unacknowledged_messages_come_again_at_the_other_node_with_their_ids(place: &Place) {
    let nodes = [place.start(), place.start()];
    for version in V311_AND_V5 {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        client.subscribe("a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&nodes[1], V5, "publisher");
        (0..6).for_each(|number| publisher.publish("a", number.to_string()));
        let mut open: Vec<_> = (0..6).map(|_| client.expect_unacknowledged()).collect();
        (0..2).for_each(|_| client.acknowledge(&open.remove(0)));
        for round in 1..4 {
            client.expect_nothing_before_pingresp();
            client.vanish(&nodes[(round + 1) % 2]);
            nodes[(round + 1) % 2].write_down();
            client = RawClient::resumed(&nodes[round % 2], &asked, true);
            for message in &open {
                assert_eq!(client.expect_unacknowledged(), Message { dup: true, ..message.clone() });
            }
        }
        open.iter().for_each(|message| client.acknowledge(message));
        client.expect_nothing_before_pingresp();
        client.leave();
    }
}

/// [MQTT-4.4.0-1]: at least once, whatever the older node had told of its client.
fn nothing_is_lost_when_a_live_connection_is_taken_over(place: &Place) {
    let nodes = [place.start(), place.start()];
    let asked = lasting(V5, "wanderer");
    let mut client = RawClient::resumed(&nodes[0], &asked, false);
    client.subscribe("a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&nodes[0], V5, "publisher");
    let mut seen = Vec::new();
    for round in 0..6 {
        publisher.publish("a", round.to_string());
        // Received, and not acknowledged.
        while seen.last() != Some(&round) {
            seen.push(client.expect_unacknowledged().text().parse().unwrap());
        }
        let mut newer = RawClient::resumed(&nodes[(round + 1) % 2], &asked, true);
        client.expect_end(ReasonCode::SessionTakenOver);
        let again = newer.expect_unacknowledged();
        assert_eq!(again.text(), "0", "the oldest message without PUBACK is lost");
        client = newer;
        seen = vec![0];
    }
}

/// [MQTT-4.3.3-2 to 4.3.3-7, 4.4.0-1]: also without an end of the older connection, because ids are in the log before the
/// client sees them.
fn qos_2_deliveries_go_on_at_the_other_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    for version in V311_AND_V5 {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        client.subscribe("a", QoS::ExactlyOnce);
        let mut publisher = RawClient::connected(&nodes[0], V5, "publisher");
        ["done", "released", "open"].iter().for_each(|text| publisher.publish_exactly_once("a", text));
        let messages: Vec<_> = (0..3).map(|_| client.expect_unacknowledged()).collect();
        let [done, released, open] = messages.as_slice() else { panic!() };
        client.acknowledge(done);
        client.receive_id(id_of(released));
        client.expect_pubrel(id_of(released));
        for round in 1..4 {
            let mut newer = RawClient::resumed(&nodes[round % 2], &asked, true);
            client.expect_end(ReasonCode::SessionTakenOver);
            // PUBCOMP is recorded with whatever comes next: PUBREL for an id that is free does no harm.
            let mut released_ids = Vec::new();
            let again = loop {
                let frame = newer.expect();
                match frame.packet() {
                    Packet::PubRel(release) => released_ids.push(release.packet_id.get()),
                    Packet::Publish(_) => break frame.message(),
                    other => panic!("{other:?}"),
                }
            };
            assert!(
                released_ids.contains(&id_of(released)) && !released_ids.contains(&id_of(open)),
                "{released_ids:?}"
            );
            assert_eq!(again, Message { dup: true, ..open.clone() });
            newer.expect_nothing_before_pingresp();
            client = newer;
        }
        client.complete_id(id_of(released));
        client.acknowledge(open);
        publisher.publish_exactly_once("a", "marker");
        client.expect_text("a", "marker");
        client.leave();
    }
}

/// [MQTT-4.3.3-10, 4.4.0-1]: PUBLISH with DUP, with and without a PUBREC before.
fn qos_2_publishes_go_on_at_the_other_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    for (round, version) in (1..).zip(V311_AND_V5) {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        client.send_publish(&publish_2(1, "a", b"1"));
        client.expect_pubrec(1);
        client.send_publish(&publish_2(2, "a", b"2"));
        let mut newer = RawClient::resumed(&nodes[1], &asked, true);
        client.break_off();
        for (id, text) in [(1, "1"), (2, "2")] {
            newer.send_publish(&Publish { dup: true, ..publish_2(id, "a", text.as_bytes()) });
        }
        newer.expect_pubrec(1);
        newer.expect_pubrec(2);
        let mut newest = RawClient::resumed(&nodes[0], &asked, true);
        newer.expect_end(ReasonCode::SessionTakenOver);
        (1..=2).for_each(|id| newest.release(id));
        (1..=2).for_each(|id| newest.expect_pubcomp(id));
        newest.leave();
        assert_eq!(records(place), 2 * round, "{version:?}");
    }
}

/// [MQTT-4.3.3-11, 4.3.3-12]: it is answered, and the id is free for another message.
fn pubrel_may_be_the_first_packet_at_the_other_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    for (round, version) in (1..).zip(V311_AND_V5) {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        client.send_publish(&publish_2(1, "a", b"1"));
        client.expect_pubrec(1);
        let mut newer = RawClient::resumed(&nodes[1], &asked, true);
        newer.release(1);
        newer.expect_pubcomp(1);
        newer.send_publish(&publish_2(1, "a", b"2"));
        newer.expect_pubrec(1);
        newer.release(1);
        newer.expect_pubcomp(1);
        client.expect_end(ReasonCode::SessionTakenOver);
        newer.leave();
        assert_eq!(records(place), 2 * round);
    }
}

/// Exactly once for every Kafka program, too.
fn qos_2_publishes_of_a_client_that_wanders_are_one_record_each(place: &Place) {
    const ROUNDS: u16 = 8;
    let settings = [("topics.messages.partitions", "3")];
    let nodes = [place.start_with(&settings), place.start_with(&settings)];
    let topics = ["a", "b", "c", "d"];
    let topic = |id: u16| topics[usize::from(id) % topics.len()];
    let asked = lasting(V311, "wanderer");
    let mut client = RawClient::connected_with(&nodes[0], &asked);
    for round in 1..=ROUNDS {
        let ids = (round - 1) * 5 + 1..=round * 5;
        ids.clone().for_each(|id| client.send_publish(&publish_2(id, topic(id), id.to_string().as_bytes())));
        let newer = RawClient::connected_with(&nodes[usize::from(round % 2)], &asked);
        client.break_off();
        client = newer;
        for id in ids.clone() {
            client.send_publish(&Publish { dup: true, ..publish_2(id, topic(id), id.to_string().as_bytes()) });
        }
        ids.for_each(|id| client.expect_pubrec(id));
    }
    (1..=ROUNDS * 5).for_each(|id| client.release(id));
    (1..=ROUNDS * 5).for_each(|id| client.expect_pubcomp(id));
    let mut texts: Vec<u16> = place
        .read(&place.default_topic())
        .into_iter()
        .map(|record| String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap())
        .collect();
    texts.sort_unstable();
    assert_eq!(texts, (1..=ROUNDS * 5).collect::<Vec<_>>());
}

/// [MQTT-3.1.2-4, 3.2.2-2]
fn a_clean_start_at_the_other_node_ends_the_session(place: &Place) {
    let nodes = [place.start(), place.start()];
    let mut publisher = RawClient::connected(&nodes[0], V5, "publisher");
    for version in V311_AND_V5 {
        let client_id = format!("wanderer-{version:?}");
        let asked = lasting(version, &client_id);
        let mut older = RawClient::resumed(&nodes[0], &asked, false);
        older.subscribe("old", QoS::ExactlyOnce);
        let mut clean = RawClient::resumed(&nodes[1], &connect(version, &client_id), false);
        older.expect_end(ReasonCode::SessionTakenOver);
        clean.subscribe("new", QoS::AtLeastOnce);
        publisher.publish("old", "1");
        publisher.publish("new", "2");
        clean.expect_text("new", "2");
        clean.leave();
        let mut client = RawClient::resumed(&nodes[0], &asked, false);
        publisher.publish("old", "3");
        client.expect_nothing_before_pingresp();
        client.leave();
    }
}

/// MQTT5 §3.14.2.2.2
fn disconnect_ends_a_session_at_every_node(place: &Place) {
    let nodes = [place.start(), place.start()];
    let asked = lasting(V5, "wanderer");
    for round in 0..6 {
        let client = RawClient::resumed(&nodes[round % 2], &asked, false);
        client.leave_for_good();
        nodes[round % 2].write_down();
    }
}

/// The log is all there is: no node that knew the session is left.
fn a_session_outlives_all_nodes(place: &Place) {
    for (round, version) in ALL_VERSIONS.into_iter().enumerate() {
        let node = place.start();
        if round > 0 {
            let mut client = RawClient::connected_with(&node, &lasting(V311, "survivor"));
            assert_eq!(client.expect_text("a", &round.to_string()).qos(), QoS::AtLeastOnce);
            client.leave();
        }
        let mut client = RawClient::connected_with(&node, &lasting(version, "survivor"));
        client.subscribe("a", QoS::AtLeastOnce);
        client.leave();
        let mut publisher = RawClient::connected(&node, V5, "publisher");
        publisher.publish("a", (round + 1).to_string());
        node.drain_to_its_end();
    }
}

/// It said of every session that nothing of it is on its way; a node that is missed is given ten seconds and more.
fn after_a_drain_the_next_node_goes_on_at_once(place: &Place) {
    let (next, node) = (place.start(), place.start());
    let asked = lasting(V5, "wanderer");
    let mut client = RawClient::resumed(&node, &asked, false);
    client.subscribe("b", QoS::ExactlyOnce);
    client.send_publish(&publish_2(1, "a", b"1"));
    client.expect_pubrec(1);
    client.send_publish(&publish_2(2, "a", b"2"));
    client.expect_pubrec(2);
    node.drain();
    client.expect_end(ReasonCode::ServerShuttingDown);
    node.ended();
    let mut client = RawClient::resumed(&next, &asked, true);
    client.send_publish(&Publish { dup: true, ..publish_2(2, "a", b"2") });
    client.send_publish(&Publish { dup: true, ..publish_2(3, "a", b"3") });
    client.expect_pubrec(2);
    client.expect_pubrec(3);
    client.release(1);
    client.expect_pubcomp(1);
    RawClient::connected(&next, V5, "publisher").publish("b", "x");
    client.expect_text("b", "x");
    assert_eq!(records(place), 4);
}

/// DESIGN "When things break": damped per client id, else two clients with one id would fill the log. On one node, and
/// between two: it is the one that lost it that waits.
fn a_client_id_that_is_fought_over_is_left_alone_for_a_while(place: &Place) {
    let nodes = [place.start(), place.start()];
    for (client_id, asked_at, last) in [("one", [0, 0], 7), ("two", [0, 1], 12)] {
        let asked = lasting(V5, client_id);
        let at = |round: usize| &nodes[asked_at[round % 2]];
        let mut winner = RawClient::connected_with(at(0), &asked);
        for round in 1..=last {
            let mut challenger = RawClient::open(at(round), V5);
            challenger.send_connect(&asked);
            if round == last {
                (0..50).for_each(|_| winner.publish("a", "undisturbed"));
            }
            challenger.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::Success));
            winner.expect_end(ReasonCode::SessionTakenOver);
            winner = challenger;
        }
    }
}

impl TestNode {
    /// What this node had been told of its sessions is in the log when this returns: it writes in order.
    pub(crate) fn write_down(&self) {
        let mut witness = RawClient::connected_with(self, &lasting(V5, "witness"));
        witness.subscribe("witness", QoS::AtLeastOnce);
        witness.leave_for_good();
    }

    fn drain_to_its_end(self) {
        self.drain();
        self.ended();
    }
}
