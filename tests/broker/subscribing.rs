//! SUBSCRIBE, UNSUBSCRIBE and what matches.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{ProtocolVersion, QoS};

use crate::fixture::{Place, TestNode};
use crate::packets::{ALL_VERSIONS, V5, V311, V311_AND_V5, options, publish, subscribe, subscribe_with, unsubscribe};
use crate::raw::{Message, RawClient};

on_both_journals![
    the_lower_of_both_qos_is_delivered,
    every_qos_is_granted,
    every_filter_of_a_subscribe_has_its_own_answer,
    plus_matches_one_level,
    hash_matches_the_rest_and_the_parent,
    wildcards_do_not_match_dollar_at_the_first_level,
    topics_are_compared_byte_by_byte,
    overlapping_subscriptions_bring_one_copy,
    overlapping_subscriptions_bring_the_highest_qos,
    a_replaced_subscription_has_the_new_options,
    unsubscribe_ends_delivery,
    unsubscribe_takes_the_filter_as_it_is_written,
    unsubscribing_from_nothing_is_answered,
    an_invalid_filter_is_refused,
    a_shared_subscription_is_not_available,
    a_subscribe_without_filters_ends_the_connection,
    a_subscribe_with_wrong_flags_ends_the_connection,
    a_zero_packet_id_ends_the_connection,
    more_subscriptions_than_the_limit_are_refused,
    many_subscribes_at_once_are_all_answered,
    every_subscriber_gets_a_copy,
    a_client_gets_its_own_messages,
    a_subscription_spans_all_partitions,
];

/// The payloads that arrive before `marker`, which is published last.
#[track_caller]
fn until_marker(subscriber: &mut RawClient) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = subscriber.expect_message();
        if message.payload == b"marker" {
            return messages;
        }
        messages.push(message);
    }
}

/// Which of `topics` a subscription to `filter` brings.
#[track_caller]
fn matching<'t>(node: &TestNode, version: ProtocolVersion, filter: &str, topics: &[&'t str]) -> Vec<&'t str> {
    let mut subscriber = RawClient::subscribed(node, version, filter, QoS::AtLeastOnce);
    subscriber.subscribe("the/end", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(node, version, "publisher");
    for topic in topics {
        publisher.publish(topic, "x");
    }
    publisher.publish("the/end", "marker");
    let got = until_marker(&mut subscriber);
    topics.iter().copied().filter(|topic| got.iter().any(|message| message.topic == *topic)).collect()
}

/// [MQTT-3.8.4-8]
fn the_lower_of_both_qos_is_delivered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        for granted in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let mut subscriber = RawClient::subscribed(&node, version, "a", granted);
            let mut publisher = RawClient::connected(&node, version, "publisher");
            publisher.send_publish(&publish("a", b"0"));
            assert_eq!(subscriber.expect_text("a", "0").qos(), QoS::AtMostOnce);
            publisher.publish("a", "1");
            assert_eq!(subscriber.expect_text("a", "1").qos(), granted);
        }
    }
}

/// [MQTT-3.9.3-1]
fn every_qos_is_granted(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        let cases = [
            (QoS::AtMostOnce, ReasonCode::Success),
            (QoS::AtLeastOnce, ReasonCode::GrantedQoS1),
            (QoS::ExactlyOnce, ReasonCode::GrantedQoS2),
        ];
        for (id, (qos, granted)) in (1..).zip(cases) {
            client.send(&subscribe(id, "a", qos));
            client.expect_suback(id, &[granted]);
        }
    }
}

/// [MQTT-3.8.4-2, 3.8.4-6, 3.9.3-1]
fn every_filter_of_a_subscribe_has_its_own_answer(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        let filters = [("a", QoS::AtLeastOnce), ("b", QoS::AtMostOnce), ("c/#", QoS::AtLeastOnce)];
        client.send(&subscribe_with(300, None, &filters.map(|(filter, qos)| (filter, options(qos)))));
        client.expect_suback(300, &[ReasonCode::GrantedQoS1, ReasonCode::Success, ReasonCode::GrantedQoS1]);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for topic in ["a", "b", "c/d"] {
            publisher.publish(topic, "x");
            client.expect_text(topic, "x");
        }
    }
}

/// MQTT5 §4.7.1.3 [MQTT-4.7.1-2]
fn plus_matches_one_level(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let topics = ["a/b/c", "a//c", "a/b", "a/b/c/d", "b/b/c", "a/b/", "/a"];
        assert_eq!(matching(&node, version, "a/+/c", &topics), ["a/b/c", "a//c"]);
        assert_eq!(matching(&node, version, "+", &["a", "/a", "a/"]), ["a"]);
        assert_eq!(matching(&node, version, "/+", &["a", "/a", "/", "//"]), ["/a", "/"]);
        assert_eq!(matching(&node, version, "+/+", &["a", "/a", "a/b", "/"]), ["/a", "a/b", "/"]);
    }
}

/// MQTT5 §4.7.1.2 [MQTT-4.7.1-1]
fn hash_matches_the_rest_and_the_parent(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let topics = ["a", "a/", "a/b", "a/b/c", "ab", "b/a"];
        assert_eq!(matching(&node, version, "a/#", &topics), ["a", "a/", "a/b", "a/b/c"]);
        assert_eq!(matching(&node, version, "#", &topics), topics);
        assert_eq!(matching(&node, version, "+/b/#", &topics), ["a/b", "a/b/c"]);
    }
}

/// [MQTT-4.7.2-1]: records of other programs, because clients cannot publish there.
fn wildcards_do_not_match_dollar_at_the_first_level(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        for (filter, brings) in
            [("#", false), ("+/load", false), ("$SYS/#", true), ("$SYS/load", true), ("$SYS/+", true)]
        {
            let mut subscriber = RawClient::subscribed(&node, version, filter, QoS::AtLeastOnce);
            subscriber.subscribe("the/end", QoS::AtLeastOnce);
            let records = [("$SYS/load", "x"), ("the/end", "marker")];
            place.write(&place.default_topic(), &records.map(|(key, value)| crate::the_log::record(key, value)));
            let got = until_marker(&mut subscriber);
            assert_eq!(got.iter().any(|message| message.topic == "$SYS/load"), brings, "{filter}");
        }
    }
}

/// [MQTT-4.7.3-4, 1.5.4-3]: case, spaces, empty levels and U+FEFF count.
fn topics_are_compared_byte_by_byte(place: &Place) {
    let node = place.start();
    let topics = ["a/b", "A/b", "a/b ", "/a/b", "a/b/", "a//b", "\u{feff}a/b", "a\u{308}/b", "\u{e4}/b"];
    for version in V311_AND_V5 {
        for filter in topics {
            assert_eq!(matching(&node, version, filter, &topics), [filter]);
        }
    }
}

/// [MQTT-3.3.4-2]: this server sends one copy, in 3.1.1, too.
fn overlapping_subscriptions_bring_one_copy(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::connected(&node, version, "subscriber");
        for filter in ["a/#", "a/+", "a/b", "#", "+/b"] {
            subscriber.subscribe(filter, QoS::AtLeastOnce);
        }
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.publish("a/b", "once");
        publisher.publish("a/b", "marker");
        assert_eq!(until_marker(&mut subscriber).len(), 1);
    }
}

/// [MQTT-3.3.4-2]
fn overlapping_subscriptions_bring_the_highest_qos(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::connected(&node, version, "subscriber");
        for (filter, qos) in [("a", QoS::AtMostOnce), ("#", QoS::AtLeastOnce), ("+", QoS::AtMostOnce)] {
            subscriber.subscribe(filter, qos);
        }
        RawClient::connected(&node, version, "publisher").publish("a", "x");
        assert_eq!(subscriber.expect_text("a", "x").qos(), QoS::AtLeastOnce);
    }
}

/// [MQTT-3.8.4-3]
fn a_replaced_subscription_has_the_new_options(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::connected(&node, version, "subscriber");
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for qos in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::AtLeastOnce] {
            subscriber.subscribe("a", qos);
            publisher.publish("a", "x");
            assert_eq!(subscriber.expect_text("a", "x").qos(), qos);
        }
        publisher.publish("a", "marker");
        assert_eq!(until_marker(&mut subscriber), []);
    }
}

/// [MQTT-3.10.4-1, 3.10.4-2, 3.10.4-4]
fn unsubscribe_ends_delivery(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut subscriber = RawClient::connected(&node, version, "subscriber");
        for filter in ["a", "b/#", "the/end"] {
            subscriber.subscribe(filter, QoS::AtLeastOnce);
        }
        subscriber.unsubscribe(&["a", "b/#"]);
        let mut publisher = RawClient::connected(&node, version, "publisher");
        publisher.publish("a", "x");
        publisher.publish("b/c", "x");
        publisher.publish("the/end", "marker");
        assert_eq!(until_marker(&mut subscriber), []);
        subscriber.subscribe("a", QoS::AtLeastOnce);
        publisher.publish("a", "again");
        subscriber.expect_text("a", "again");
    }
}

/// [MQTT-3.10.4-1]: character by character; nothing is matched.
fn unsubscribe_takes_the_filter_as_it_is_written(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut subscriber = RawClient::subscribed(&node, version, "a/b", QoS::AtLeastOnce);
        subscriber.send(&unsubscribe(77, &["a/+", "#", "A/b"]));
        subscriber.expect_unsuback(77, &[ReasonCode::NoSubscriptionExisted; 3]);
        RawClient::connected(&node, version, "publisher").publish("a/b", "still");
        subscriber.expect_text("a/b", "still");
    }
}

/// [MQTT-3.10.4-4, 3.10.4-5, 3.11.3-1]
fn unsubscribing_from_nothing_is_answered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        client.subscribe("b", QoS::AtMostOnce);
        client.send(&unsubscribe(9, &["a", "b", "c"]));
        let (no, yes) = (ReasonCode::NoSubscriptionExisted, ReasonCode::Success);
        client.expect_unsuback(9, &[no, yes, no]);
    }
}

/// [MQTT-4.7.1-1, 4.7.1-2, 3.9.3-2]: 0x8F for that filter alone. 3.x has no such answer, so the connection ends.
fn an_invalid_filter_is_refused(place: &Place) {
    let node = place.start();
    let invalid = ["a/#/b", "a#", "a+", "+a/b", "#/", "a/++/b"];
    for filter in invalid {
        let mut client = RawClient::connected(&node, V5, "a");
        client.send(&subscribe_with(5, None, &[filter, "fine"].map(|f| (f, options(QoS::AtMostOnce)))));
        client.expect_suback(5, &[ReasonCode::TopicFilterInvalid, ReasonCode::Success]);
        client.send(&unsubscribe(6, &[filter, "fine"]));
        client.expect_unsuback(6, &[ReasonCode::TopicFilterInvalid, ReasonCode::Success]);

        let mut client = RawClient::connected(&node, V311, "a");
        client.send(&subscribe(5, filter, QoS::AtMostOnce));
        client.expect_closed();
    }
}

/// CONNACK said so; 0x9E, and the failure of 3.1.1.
fn a_shared_subscription_is_not_available(place: &Place) {
    let node = place.start();
    for (version, reason) in [(V5, ReasonCode::SharedSubscriptionsNotSupported), (V311, ReasonCode::UnspecifiedError)] {
        let mut client = RawClient::connected(&node, version, "a");
        client.send(&subscribe(5, "$share/group/a", QoS::AtLeastOnce));
        client.expect_suback(5, &[reason]);
    }
}

/// [MQTT-3.8.3-2, 3.10.3-2]
fn a_subscribe_without_filters_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        for first in [0x82, 0xA2] {
            let mut client = RawClient::connected(&node, version, "a");
            match version {
                ProtocolVersion::V5 => client.send_bytes(&[first, 3, 0, 1, 0]),
                ProtocolVersion::V31 | ProtocolVersion::V311 => client.send_bytes(&[first, 2, 0, 1]),
            }
            client.expect_end(ReasonCode::ProtocolError);
        }
    }
}

/// [MQTT-3.8.1-1, 3.10.1-1]
fn a_subscribe_with_wrong_flags_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        for first in [0x80, 0xA0, 0x83] {
            let mut client = RawClient::connected(&node, version, "a");
            let mut bytes = client.wire(&subscribe(1, "a", QoS::AtMostOnce));
            bytes[0] = first;
            client.send_bytes(&bytes);
            client.expect_end(ReasonCode::MalformedPacket);
        }
    }
}

/// [MQTT-2.2.1-3]
fn a_zero_packet_id_ends_the_connection(place: &Place) {
    let node = place.start();
    for version in V311_AND_V5 {
        let mut client = RawClient::connected(&node, version, "a");
        let mut bytes = client.wire(&subscribe(1, "a", QoS::AtMostOnce));
        bytes[3] = 0;
        client.send_bytes(&bytes);
        client.expect_end(ReasonCode::ProtocolError);
    }
}

/// 0x97, and the failure of 3.1.1; what was there stays.
fn more_subscriptions_than_the_limit_are_refused(place: &Place) {
    let node = place.start_with(&[("limits.subscriptions_max", "2")]);
    for (version, refused) in [(V5, ReasonCode::QuotaExceeded), (V311, ReasonCode::UnspecifiedError)] {
        let mut client = RawClient::connected(&node, version, "a");
        client.send(&subscribe_with(5, None, &["a", "b", "c"].map(|f| (f, options(QoS::AtMostOnce)))));
        client.expect_suback(5, &[ReasonCode::Success, ReasonCode::Success, refused]);
        // A replacement is no further subscription.
        client.subscribe("a", QoS::AtLeastOnce);
        client.unsubscribe(&["b"]);
        client.subscribe("c", QoS::AtMostOnce);
    }
}

/// [MQTT-3.8.4-1, 3.10.4-4], however many are in one write.
fn many_subscribes_at_once_are_all_answered(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::connected(&node, version, "a");
        let filters: Vec<String> = (1..=100).map(|n| format!("f/{n}")).collect();
        let bytes: Vec<u8> =
            (1..).zip(&filters).flat_map(|(n, f)| client.wire(&subscribe(n, f, QoS::AtLeastOnce))).collect();
        client.send_bytes(&bytes);
        let mut answered: Vec<u16> = (1..=100)
            .map(|_| match client.expect().packet() {
                millrace::mqtt::Packet::SubAck(suback) => suback.packet_id.get(),
                other => panic!("{other:?}"),
            })
            .collect();
        answered.sort_unstable();
        assert_eq!(answered, (1..=100).collect::<Vec<_>>());
        let mut publisher = RawClient::connected(&node, version, "publisher");
        for filter in &filters {
            publisher.publish(filter, "x");
            client.expect_text(filter, "x");
        }
    }
}

/// [MQTT-3.3.5-1]
fn every_subscriber_gets_a_copy(place: &Place) {
    let node = place.start();
    let mut subscribers: Vec<RawClient> = ALL_VERSIONS
        .iter()
        .flat_map(|version| ["a/b", "a/#", "+/b"].map(|filter| (*version, filter)))
        .enumerate()
        .map(|(n, (version, filter))| {
            let mut subscriber = RawClient::connected(&node, version, &format!("subscriber-{n}"));
            subscriber.subscribe(filter, QoS::AtLeastOnce);
            subscriber
        })
        .collect();
    RawClient::connected(&node, V5, "publisher").publish("a/b", "all");
    for subscriber in &mut subscribers {
        subscriber.expect_text("a/b", "all");
    }
}

/// MQTT5 §3.8.3.1: unless No Local says otherwise.
fn a_client_gets_its_own_messages(place: &Place) {
    let node = place.start();
    for version in ALL_VERSIONS {
        let mut client = RawClient::subscribed(&node, version, "a", QoS::AtMostOnce);
        client.send_publish(&publish("a", b"mine"));
        client.expect_text("a", "mine");
    }
}

/// Keys hash anywhere; a wildcard misses none of them.
fn a_subscription_spans_all_partitions(place: &Place) {
    let node = place.start_with(&[("topics.messages.partitions", "7")]);
    let mut subscriber = RawClient::subscribed(&node, V311, "t/#", QoS::AtLeastOnce);
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    let mut topics: Vec<String> = (0..60).map(|n| format!("t/{n}")).collect();
    for topic in &topics {
        publisher.publish(topic, "x");
    }
    let mut got: Vec<String> = topics.iter().map(|_| subscriber.expect_message().topic).collect();
    got.sort_unstable();
    topics.sort_unstable();
    assert_eq!(got, topics);
    let used: std::collections::BTreeSet<u32> =
        place.read(&place.default_topic()).iter().map(|record| record.partition).collect();
    assert!(used.len() > 3, "{used:?}");
}
