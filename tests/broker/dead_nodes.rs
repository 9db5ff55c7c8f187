//! Nodes that end without a word. The others give them ten seconds and more, so these tests take their time.

use millrace::mqtt::packet::{Connect, Publish, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{V5, V311, connect, lasting, publish_2, will};
use crate::raw::{Message, PATIENCE, RawClient};

on_both_journals![
    clients_of_a_killed_node_go_on_and_its_wills_come_once,
    a_killed_cluster_goes_on,
    what_was_acknowledged_before_the_last_watermark_does_not_come_again,
];

fn id_of(message: &Message) -> u16 {
    message.delivery.packet_id().unwrap().get()
}

fn with_will<'a>(mut asked: Connect<'a>, text: &'a str, delay_s: Option<u32>) -> Connect<'a> {
    let mut last = will("wills", text.as_bytes());
    last.delay_s = delay_s;
    asked.will = Some(last);
    asked
}

/// A client that is told of every record, once: what it gets until the marker, sorted.
fn records(mut watcher: RawClient, node: &TestNode) -> Vec<String> {
    RawClient::connected(node, V311, "marker").publish("marker", "");
    let texts = std::iter::repeat_with(|| watcher.expect_message()).take_while(|message| message.topic != "marker");
    let mut texts: Vec<String> = texts.map(|message| message.text().to_owned()).collect();
    texts.sort();
    texts
}

/// [MQTT-4.4.0-1, 4.3.3-10, 3.1.2-8, 3.1.3-9]: sessions at once; QoS 2 of which the dead node alone knew the fate, and
/// wills, when Kafka refuses its writes.
fn clients_of_a_killed_node_go_on_and_its_wills_come_once(place: &Place) {
    let (next, dying) = (place.start(), place.start());
    let watcher = RawClient::subscribed(&next, V5, "#", QoS::AtLeastOnce);
    let mut mourner = RawClient::subscribed(&next, V5, "wills", QoS::AtLeastOnce);
    mourner.be_patient();
    let asked = lasting(V5, "subscriber");
    let mut subscriber = RawClient::resumed(&dying, &asked, false);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    let mut publisher = RawClient::resumed(&dying, &lasting(V311, "publisher"), false);
    for (id, text) in [(1, "released"), (2, "unreleased")] {
        publisher.send_publish(&publish_2(id, "a", text.as_bytes()));
        publisher.expect_pubrec(id);
    }
    publisher.release(1);
    publisher.expect_pubcomp(1);
    let messages: Vec<_> = (0..2).map(|_| subscriber.expect_unacknowledged()).collect();
    subscriber.receive_id(id_of(&messages[0]));
    subscriber.expect_pubrel(id_of(&messages[0]));
    publisher.send_publish(&publish_2(3, "a", b"without pubrec"));
    let mortal = [
        with_will(connect(V311, "clean"), "clean", None),
        with_will(lasting(V5, "lasting"), "lasting", Some(0)),
        with_will(lasting(V5, "delayed"), "delayed", Some(1)),
        with_will(lasting(V5, "back"), "back", Some(3_600)),
    ];
    let mortal: Vec<_> = mortal.iter().map(|asked| RawClient::resumed(&dying, asked, false)).collect();
    let leaving = RawClient::resumed(&dying, &with_will(lasting(V5, "leaving"), "leaving", None), false);
    leaving.leave();
    dying.write_down();
    dying.kill();
    drop(mortal);

    // At once.
    let mut subscriber = RawClient::resumed(&next, &asked, true);
    subscriber.expect_pubrel(id_of(&messages[0]));
    assert_eq!(subscriber.expect_unacknowledged(), Message { dup: true, ..messages[1].clone() });
    subscriber.complete_id(id_of(&messages[0]));
    subscriber.acknowledge(&messages[1]);
    RawClient::resumed(&next, &lasting(V5, "back"), true).leave();
    // When the dead node is fenced.
    let mut publisher = RawClient::resumed(&next, &lasting(V311, "publisher"), true);
    publisher.be_patient();
    for (id, text) in [(2, "unreleased"), (3, "without pubrec"), (4, "never sent")] {
        publisher.send_publish(&Publish { dup: true, ..publish_2(id, "a", text.as_bytes()) });
    }
    (2..=4).for_each(|id| publisher.expect_pubrec(id));
    (2..=4).for_each(|id| publisher.release(id));
    (2..=4).for_each(|id| publisher.expect_pubcomp(id));
    (0..3).for_each(|_| drop(mourner.expect_message()));
    for text in ["without pubrec", "never sent"] {
        drop(subscriber.expect_text("a", text));
    }
    let wanted = ["clean", "delayed", "lasting", "never sent", "released", "unreleased", "without pubrec"];
    assert_eq!(records(watcher, &next), wanted);
}

/// All nodes at once: the next one is alone with what they left, and has to fence them itself.
fn a_killed_cluster_goes_on(place: &Place) {
    let nodes = [place.start(), place.start()];
    let asked = lasting(V5, "survivor");
    let mut client = RawClient::resumed(&nodes[0], &asked, false);
    client.subscribe("a", QoS::ExactlyOnce);
    client.subscribe("wills", QoS::AtLeastOnce);
    RawClient::connected(&nodes[1], V5, "publisher").publish_exactly_once("a", "1");
    let open = client.expect_unacknowledged();
    let mortal = RawClient::resumed(&nodes[1], &with_will(lasting(V5, "mortal"), "gone", None), false);
    nodes.into_iter().for_each(TestNode::kill);
    drop((client, mortal));
    let next = place.start();
    let watcher = RawClient::subscribed(&next, V5, "#", QoS::AtLeastOnce);
    let mut client = RawClient::resumed(&next, &asked, true);
    client.be_patient();
    assert_eq!(client.expect_unacknowledged(), Message { dup: true, ..open.clone() });
    client.acknowledge(&open);
    // It comes as soon as nobody can be about to publish it.
    client.expect_text("wills", "gone");
    RawClient::connected(&next, V5, "publisher").publish_exactly_once("a", "2");
    client.expect_text("a", "2");
    assert_eq!(records(watcher, &next), ["2", "gone"]);
}

/// MQTT5 §4.3.2 allows that it does; the watermarks of a node, one in five seconds, say from where on it may.
fn what_was_acknowledged_before_the_last_watermark_does_not_come_again(place: &Place) {
    const WATERMARKS: &str = "millrace_watermarks_total";
    let (next, dying) = (place.start(), place.start());
    let asked = lasting(V5, "survivor");
    let mut client = RawClient::resumed(&dying, &asked, false);
    client.subscribe("a", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&next, V5, "publisher");
    // Each watermark says where the tail was at the one before.
    for text in ["0", "1"] {
        let before = dying.metric(WATERMARKS);
        publisher.publish("a", text);
        client.expect_text("a", text);
        client.expect_nothing_before_pingresp();
        let give_up = millrace::clock::now() + PATIENCE;
        while dying.metric(WATERMARKS) <= before {
            assert!(millrace::clock::now() < give_up, "there is no watermark");
            std::thread::yield_now();
        }
    }
    dying.write_down();
    dying.kill();
    publisher.publish("a", "new");
    let mut client = RawClient::resumed(&next, &asked, true);
    let mut message = client.expect_message();
    if message.text() == "1" {
        message = client.expect_message();
    }
    assert_eq!(message.text(), "new");
    client.expect_nothing_before_pingresp();
}
