//! Sessions that outlive their connection, on one node (MQTT5 §4.1, 3.1.1 §3.1.2.4).

use std::num::NonZeroU16;

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Connect, QoS};

use crate::fixture::Place;
use crate::packets::{
    ALL_VERSIONS, V5, V31, V311, V311_AND_V5, connect, disconnect_with_expiry, lasting, publish, will,
};
use crate::raw::RawClient;
use crate::the_log::{ForeignRecord, record};

on_both_journals![
    session_present_says_whether_there_was_a_session,
    a_session_is_the_same_in_every_version,
    an_expiry_within_the_limit_is_granted_without_a_word,
    an_expiry_above_the_limit_is_lowered_and_told,
    a_session_ends_when_its_expiry_has_passed,
    disconnect_can_end_a_session_at_once,
    disconnect_can_make_a_session_last_longer,
    a_clean_start_ends_the_session,
    an_assigned_client_id_finds_its_session_again,
    messages_published_while_away_come_with_their_qos,
    what_a_kafka_program_wrote_while_away_comes_too,
    the_expiry_of_a_message_is_counted_down_while_away,
    what_was_acknowledged_does_not_come_again,
    thousands_of_messages_published_while_away_come_in_order,
    a_session_can_be_away_again_before_it_has_caught_up,
    a_subscription_of_a_resumed_session_can_be_replaced_and_given_up,
    a_subscription_of_qos_0_outlives_the_connection,
];

/// A session that lasts so long after its connection, in MQTT 5.
fn for_seconds(client_id: &str, expiry_s: u32) -> Connect<'_> {
    let mut asked = lasting(V5, client_id);
    asked.properties.session_expiry_s = Some(expiry_s);
    asked
}

/// [MQTT-3.2.2-2, 3.2.2-3]; 3.1 has no word for it: its flag is reserved.
fn session_present_says_whether_there_was_a_session(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = format!("kept-{version:?}");
        let kept = lasting(version, &client_id);
        RawClient::resumed(&node, &kept, false).leave();
        RawClient::resumed(&node, &kept, true).vanish(&node);
        // Also without an end of the older connection, which is taken over.
        let mut older = RawClient::resumed(&node, &kept, true);
        let newer = RawClient::resumed(&node, &kept, true);
        older.expect_end(ReasonCode::SessionTakenOver);
        newer.break_off();
        // A clean start ends it, whether or not it begins one that lasts.
        let mut fresh = kept.clone();
        fresh.clean_start = true;
        RawClient::resumed(&node, &fresh, false).leave();
        // In 3.1.1 the clean flag says both, in 5 the expiry does.
        RawClient::resumed(&node, &kept, version == V5).leave();
        RawClient::resumed(&node, &connect(version, &client_id), false).leave();
        RawClient::resumed(&node, &kept, false).leave();
    }
}

/// §3.1.2.11.2: a session of 3.x without the clean flag is one of 5 that lasts.
fn a_session_is_the_same_in_every_version(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut client = RawClient::resumed(&node, &lasting(V31, "kept"), false);
    client.subscribe("a", QoS::ExactlyOnce);
    for version in [V5, V311, V31, V311, V5] {
        client.vanish(&node);
        publisher.publish("a", format!("{version:?}"));
        client = RawClient::open(&node, version);
        client.send_connect(&lasting(version, "kept"));
        // 3.1 has no flag for it.
        client.expect_connack(|connack| assert_eq!(connack.session_present, version != V31));
        client.expect_text("a", &format!("{version:?}"));
    }
}

fn granted_expiry(client: &mut RawClient) -> Option<u32> {
    let mut granted = None;
    client.expect_connack(|connack| {
        assert_eq!(connack.reason, ReasonCode::Success);
        granted = connack.properties.session_expiry_s;
    });
    granted
}

/// MQTT5 §3.2.2.3.2
fn an_expiry_within_the_limit_is_granted_without_a_word(place: &Place) {
    let node = place.start();
    for expiry_s in [1, 3_600, 6 * 24 * 3_600] {
        let mut client = RawClient::open(&node, V5);
        client.send_connect(&for_seconds("kept", expiry_s));
        assert_eq!(granted_expiry(&mut client), None);
    }
}

/// MQTT5 §3.2.2.3.2: a session must not outlive the messages that it waits for.
fn an_expiry_above_the_limit_is_lowered_and_told(place: &Place) {
    let node = place.start_with(&[("topics.messages.retention", "14h")]);
    for expiry_s in [12 * 3_600 + 1, u32::MAX] {
        let mut client = RawClient::open(&node, V5);
        client.send_connect(&for_seconds("kept", expiry_s));
        assert_eq!(granted_expiry(&mut client), Some(12 * 3_600));
    }
}

/// [MQTT-4.1.0-2] and §3.1.3.2.2: its will, which would wait for longer, says when.
fn a_session_ends_when_its_expiry_has_passed(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    let mut asked = for_seconds("kept", 1);
    let mut last = will("wills/kept", b"over");
    last.delay_s = Some(3_600);
    asked.will = Some(last);
    let mut client = RawClient::resumed(&node, &asked, false);
    client.subscribe("a", QoS::AtLeastOnce);
    client.vanish(&node);
    subscriber.expect_text("wills/kept", "over");

    let mut client = RawClient::resumed(&node, &for_seconds("kept", 1), false);
    RawClient::connected(&node, V5, "publisher").publish("a", "x");
    client.expect_nothing_before_pingresp();
}

/// [MQTT-3.1.2-23] and §3.14.2.2.2
fn disconnect_can_end_a_session_at_once(place: &Place) {
    let node = place.start();
    for _ in 0..20 {
        let mut client = RawClient::resumed(&node, &for_seconds("kept", 3_600), false);
        client.send(&disconnect_with_expiry(0));
        client.expect_closed();
    }
}

/// §3.14.2.2.2, as far as the limit goes.
fn disconnect_can_make_a_session_last_longer(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    let mut client = RawClient::resumed(&node, &for_seconds("longer", 1), false);
    client.send(&disconnect_with_expiry(u32::MAX));
    client.expect_closed();
    // When that one is over, the other would have been, too.
    let mut asked = for_seconds("shorter", 1);
    let mut last = will("wills/shorter", b"over");
    last.delay_s = Some(3_600);
    asked.will = Some(last);
    RawClient::resumed(&node, &asked, false).break_off();
    subscriber.expect_text("wills/shorter", "over");
    RawClient::resumed(&node, &for_seconds("longer", 1), true);
}

/// [MQTT-3.1.2-4]: subscriptions and messages of the old session are gone.
fn a_clean_start_ends_the_session(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for version in ALL_VERSIONS {
        let client_id = format!("kept-{version:?}");
        let mut client = RawClient::connected_with(&node, &lasting(version, &client_id));
        client.subscribe("old", QoS::ExactlyOnce);
        publisher.publish("old", "1");
        client.expect_unacknowledged();
        client.vanish(&node);
        publisher.publish("old", "2");
        let mut client = RawClient::resumed(&node, &connect(version, &client_id), false);
        client.subscribe("new", QoS::ExactlyOnce);
        publisher.publish("old", "3");
        publisher.publish("new", "4");
        client.expect_text("new", "4");
    }
}

/// [MQTT-3.1.3-6]
fn an_assigned_client_id_finds_its_session_again(place: &Place) {
    let node = place.start();
    let mut client = RawClient::open(&node, V5);
    client.send_connect(&lasting(V5, ""));
    let mut id = None;
    client.expect_connack(|connack| id = connack.properties.assigned_client_id.map(str::to_owned));
    client.subscribe("a", QoS::AtLeastOnce);
    client.leave();
    RawClient::connected(&node, V5, "publisher").publish("a", "x");
    RawClient::resumed(&node, &lasting(V5, &id.unwrap()), true).expect_text("a", "x");
}

/// [MQTT-4.1.0-1], 3.1.1 §3.1.2.4: QoS 1 and 2 are kept, QoS 0 is not; however the connection ended.
fn messages_published_while_away_come_with_their_qos(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for (version, politely) in ALL_VERSIONS.into_iter().flat_map(|version| [(version, true), (version, false)]) {
        let client_id = format!("away-{version:?}-{politely}");
        let asked = lasting(version, &client_id);
        let mut client = RawClient::connected_with(&node, &asked);
        client.subscribe("twice/+", QoS::AtLeastOnce);
        client.subscribe("once/+", QoS::ExactlyOnce);
        if politely {
            client.leave();
        } else {
            client.vanish(&node);
        }
        for topic in ["twice/a", "once/a", "other"] {
            publisher.send_publish(&publish(topic, b"0"));
            publisher.publish(topic, "1");
            publisher.publish_exactly_once(topic, "2");
        }
        let mut client = RawClient::connected_with(&node, &asked);
        for (topic, text, qos) in [
            ("twice/a", "1", QoS::AtLeastOnce),
            ("twice/a", "2", QoS::AtLeastOnce),
            ("once/a", "1", QoS::AtLeastOnce),
            ("once/a", "2", QoS::ExactlyOnce),
        ] {
            let message = client.expect_text(topic, text);
            assert_eq!((message.qos(), message.dup, message.retain), (qos, false, false));
        }
        publisher.publish("once/a", "marker");
        client.expect_text("once/a", "marker");
        client.leave();
    }
}

/// A record without headers has QoS 2.
fn what_a_kafka_program_wrote_while_away_comes_too(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let client_id = format!("away-{version:?}");
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), false);
        client.subscribe("plain/#", QoS::ExactlyOnce);
        client.leave();
        place.write(&place.default_topic(), &[record("plain/a", "1"), record("other", "2"), record("plain/b", "3")]);
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), true);
        assert_eq!(client.expect_text("plain/a", "1").qos(), QoS::ExactlyOnce);
        client.expect_text("plain/b", "3");
    }
}

/// [MQTT-3.3.2-5, 3.3.2-6]
fn the_expiry_of_a_message_is_counted_down_while_away(place: &Place) {
    let node = place.start();
    let mut client = RawClient::resumed(&node, &lasting(V5, "away"), false);
    client.subscribe("a", QoS::AtLeastOnce);
    client.leave();
    let until = |seconds: i64| {
        let at_ms = millrace::clock::wall_ms() + seconds * 1_000;
        ForeignRecord { headers: vec![("mqtt-expires-at", at_ms.to_string().into_bytes())], ..record("a", "waits") }
    };
    place.write(&place.default_topic(), &[until(-1), until(100), record("a", "for ever")]);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    let mut expiring = publish("a", b"published");
    expiring.properties.message_expiry_s = Some(500);
    publisher.publish_with(&expiring);
    let mut client = RawClient::resumed(&node, &lasting(V5, "away"), true);
    assert!((1..=100).contains(&client.expect_text("a", "waits").expiry_s.unwrap()));
    assert_eq!(client.expect_text("a", "for ever").expiry_s, None);
    assert!((1..=500).contains(&client.expect_text("a", "published").expiry_s.unwrap()));
}

/// MQTT5 §4.3.2, §4.3.3: an acknowledgement is for good, on whatever connection.
fn what_was_acknowledged_does_not_come_again(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for version in V311_AND_V5 {
        let client_id = format!("kept-{version:?}");
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), false);
        client.subscribe("a", QoS::ExactlyOnce);
        for round in 0..10 {
            let (once, twice) = (format!("once {round}"), format!("twice {round}"));
            publisher.publish_exactly_once("a", &once);
            publisher.publish("a", &twice);
            // Order is kept within a QoS.
            let mut came = [client.expect_message(), client.expect_message()].map(|message| message.text().to_owned());
            came.sort();
            assert_eq!(came, [once, twice]);
            // The acknowledgements before it were read when it is answered.
            client.expect_nothing_before_pingresp();
            client.vanish(&node);
            client = RawClient::resumed(&node, &lasting(version, &client_id), true);
        }
        client.expect_nothing_before_pingresp();
    }
}

fn texts(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// More than fit into what waits for a connection (`limits.queue_packets_max`).
fn thousands_of_messages_published_while_away_come_in_order(place: &Place) {
    let node = place.start_with(&[("limits.queue_packets_max", "100")]);
    for (version, qos) in [(V311, QoS::AtLeastOnce), (V5, QoS::ExactlyOnce)] {
        let client_id = format!("away-{version:?}");
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), false);
        client.subscribe("n/+", qos);
        client.leave();
        let texts = texts(2_000);
        let records: Vec<ForeignRecord> = texts.iter().map(|text| record("n/a", text)).collect();
        place.write_to(&place.default_topic(), 0, &records);
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), true);
        for text in &texts {
            drop(client.expect_text("n/a", text));
        }
        RawClient::connected(&node, V5, "publisher").publish("n/a", "marker");
        client.expect_text("n/a", "marker");
    }
}

/// It goes on where it was, however often.
fn a_session_can_be_away_again_before_it_has_caught_up(place: &Place) {
    const ROUND: usize = 50;
    let node = place.start_with(&[("limits.queue_packets_max", "20"), ("topics.messages.partitions", "3")]);
    let mut asked = lasting(V5, "away");
    asked.properties.receive_maximum = NonZeroU16::new(1);
    let mut client = RawClient::resumed(&node, &asked, false);
    client.subscribe("n/+", QoS::AtLeastOnce);
    client.leave();
    let topics = ["n/a", "n/b", "n/c", "n/d"];
    let texts = texts(500);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for (text, topic) in texts.iter().zip(topics.iter().cycle()) {
        publisher.publish(topic, text);
    }
    let mut next: Vec<usize> = (0..topics.len()).collect();
    for _ in 0..texts.len() / ROUND {
        client = RawClient::resumed(&node, &asked, true);
        for _ in 0..ROUND {
            let message = client.expect_message();
            let number: usize = message.text().parse().unwrap();
            assert_eq!(next[number % topics.len()], number, "{}", message.topic);
            next[number % topics.len()] += topics.len();
        }
        // With the window of 1 there may be one more that was sent and will come again.
        client.vanish(&node);
    }
    publisher.publish("n/a", "marker");
    RawClient::resumed(&node, &asked, true).expect_text("n/a", "marker");
}

/// [MQTT-3.8.4-3, 3.10.4-1]
fn a_subscription_of_a_resumed_session_can_be_replaced_and_given_up(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for version in V311_AND_V5 {
        let client_id = format!("kept-{version:?}");
        let kept = lasting(version, &client_id);
        let mut client = RawClient::resumed(&node, &kept, false);
        client.subscribe("a", QoS::AtLeastOnce);
        client.subscribe("b", QoS::AtLeastOnce);
        client.vanish(&node);
        let mut client = RawClient::resumed(&node, &kept, true);
        client.subscribe("a", QoS::ExactlyOnce);
        client.unsubscribe(&["b"]);
        publisher.publish_exactly_once("b", "1");
        publisher.publish_exactly_once("a", "2");
        assert_eq!(client.expect_text("a", "2").qos(), QoS::ExactlyOnce);
        client.vanish(&node);
        publisher.publish_exactly_once("b", "3");
        publisher.publish_exactly_once("a", "4");
        let mut client = RawClient::resumed(&node, &kept, true);
        assert_eq!(client.expect_text("a", "4").qos(), QoS::ExactlyOnce);
    }
}

/// The subscription is kept, messages for it are not.
fn a_subscription_of_qos_0_outlives_the_connection(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for version in V311_AND_V5 {
        let client_id = format!("kept-{version:?}");
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), false);
        client.subscribe("a", QoS::AtMostOnce);
        client.vanish(&node);
        publisher.publish("a", "away");
        let mut client = RawClient::resumed(&node, &lasting(version, &client_id), true);
        // Until its tail is followed again, nobody says from where on.
        client.subscribe("b", QoS::AtMostOnce);
        publisher.publish("a", "back");
        assert_eq!(client.expect_text("a", "back").qos(), QoS::AtMostOnce);
    }
}
