//! Subscription options and identifiers of MQTT 5.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Publish, QoS, RetainHandling, SubscribeOptions};

use crate::fixture::Place;
use crate::packets::{V5, V311, options, publish, subscribe_with};
use crate::raw::RawClient;

on_both_journals![
    no_local_keeps_a_clients_own_messages_away,
    no_local_counts_for_its_own_subscription_only,
    no_local_on_a_shared_subscription_ends_the_connection,
    retain_as_published_keeps_the_flag,
    every_retain_handling_is_accepted,
    a_subscription_id_comes_with_the_message,
    overlapping_subscriptions_bring_all_their_ids,
    a_replaced_subscription_has_the_new_id,
    a_replaced_subscription_can_lose_its_id,
    one_id_may_belong_to_several_filters,
    a_zero_subscription_id_ends_the_connection,
    reserved_options_end_the_connection,
];

const NO_LOCAL: SubscribeOptions = SubscribeOptions {
    qos: QoS::AtLeastOnce,
    no_local: true,
    retain_as_published: false,
    retain_handling: RetainHandling::Always,
};

/// [MQTT-3.8.3-3]: by client id, whichever connection published.
fn no_local_keeps_a_clients_own_messages_away(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "self");
    client.subscribe_to(None, "a", NO_LOCAL);
    client.send_publish(&publish("a", b"mine"));
    // The client's own connection carries its publishes in order: PINGRESP comes after the first was taken.
    client.expect_nothing_before_pingresp();
    RawClient::connected(&node, V5, "other").publish("a", "theirs");
    client.expect_text("a", "theirs");
}

/// [MQTT-3.8.3-3]
fn no_local_counts_for_its_own_subscription_only(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "self");
    client.subscribe_to(Some(1), "a", NO_LOCAL);
    client.subscribe_to(Some(2), "#", options(QoS::AtMostOnce));
    client.send_publish(&publish("a", b"mine"));
    let message = client.expect_text("a", "mine");
    assert_eq!((message.subscription_ids, message.delivery.qos()), (vec![2], QoS::AtMostOnce));
}

/// [MQTT-3.8.3-4]
fn no_local_on_a_shared_subscription_ends_the_connection(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send(&subscribe_with(1, None, &[("$share/g/a", NO_LOCAL)]));
    client.expect_end(ReasonCode::ProtocolError);
}

/// [MQTT-3.3.1-12, 3.3.1-13]
fn retain_as_published_keeps_the_flag(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V311, "publisher");
    for (topic, retain_as_published) in [("a", false), ("b", true)] {
        let mut subscriber = RawClient::connected(&node, V5, "subscriber");
        let options = SubscribeOptions { retain_as_published, ..options(QoS::AtLeastOnce) };
        subscriber.subscribe_to(None, topic, options);
        for retain in [true, false] {
            publisher.publish_with(&Publish { retain, ..publish(topic, b"x") });
            assert_eq!(subscriber.expect_message().retain, retain && retain_as_published);
        }
    }
}

/// MQTT5 §3.8.3.1
fn every_retain_handling_is_accepted(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    for retain_handling in [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never] {
        client.subscribe_to(None, "a", SubscribeOptions { retain_handling, ..options(QoS::AtLeastOnce) });
    }
}

/// [MQTT-3.3.4-3]
fn a_subscription_id_comes_with_the_message(place: &Place) {
    let node = place.start();
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for id in [1, 127, 128, 268_435_455] {
        let mut subscriber = RawClient::connected(&node, V5, "subscriber");
        subscriber.subscribe_to(Some(id), "a/+", options(QoS::AtLeastOnce));
        subscriber.subscribe_to(None, "b", options(QoS::AtLeastOnce));
        publisher.publish("a/b", "x");
        assert_eq!(subscriber.expect_text("a/b", "x").subscription_ids, [id]);
        publisher.publish("b", "y");
        assert_eq!(subscriber.expect_text("b", "y").subscription_ids, [0_u32; 0]);
    }
}

/// [MQTT-3.3.4-4, 3.3.4-5]: one copy with all of them.
fn overlapping_subscriptions_bring_all_their_ids(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::connected(&node, V5, "subscriber");
    for (id, filter) in [(Some(5), "a/#"), (Some(7), "a/b"), (None, "#"), (Some(9), "x"), (Some(5), "+/b")] {
        subscriber.subscribe_to(id, filter, options(QoS::AtLeastOnce));
    }
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    publisher.publish("a/b", "once");
    let mut ids = subscriber.expect_text("a/b", "once").subscription_ids;
    ids.sort_unstable();
    // The same identifier twice is allowed and says nothing more.
    ids.dedup();
    assert_eq!(ids, [5, 7]);
    publisher.publish("a/b", "marker");
    subscriber.expect_text("a/b", "marker");
}

/// [MQTT-3.8.4-3]
fn a_replaced_subscription_has_the_new_id(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::connected(&node, V5, "subscriber");
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for id in [1, 2, 3] {
        subscriber.subscribe_to(Some(id), "a", options(QoS::AtLeastOnce));
        publisher.publish("a", "x");
        assert_eq!(subscriber.expect_text("a", "x").subscription_ids, [id]);
    }
}

/// [MQTT-3.8.4-3]
fn a_replaced_subscription_can_lose_its_id(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::connected(&node, V5, "subscriber");
    subscriber.subscribe_to(Some(4), "a", options(QoS::AtLeastOnce));
    subscriber.subscribe_to(None, "a", options(QoS::AtLeastOnce));
    RawClient::connected(&node, V5, "publisher").publish("a", "x");
    assert_eq!(subscriber.expect_text("a", "x").subscription_ids, [0_u32; 0]);
}

/// MQTT5 §3.8.2.1.2: the identifier of a SUBSCRIBE goes with all its filters.
fn one_id_may_belong_to_several_filters(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::connected(&node, V5, "subscriber");
    subscriber.send(&subscribe_with(1, Some(11), &["a", "b"].map(|filter| (filter, options(QoS::AtMostOnce)))));
    subscriber.expect_suback(1, &[ReasonCode::Success; 2]);
    let mut publisher = RawClient::connected(&node, V5, "publisher");
    for topic in ["a", "b"] {
        publisher.publish(topic, "x");
        assert_eq!(subscriber.expect_text(topic, "x").subscription_ids, [11]);
    }
}

/// MQTT5 §3.8.2.1.2
fn a_zero_subscription_id_ends_the_connection(place: &Place) {
    let node = place.start();
    let mut client = RawClient::connected(&node, V5, "a");
    client.send_bytes(&[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0]);
    client.expect_end(ReasonCode::ProtocolError);
}

/// [MQTT-3.8.3-5], and the values that mean nothing: QoS 3, retain handling 3.
fn reserved_options_end_the_connection(place: &Place) {
    let node = place.start();
    let cases = [
        (0x40, ReasonCode::MalformedPacket),
        (0x80, ReasonCode::MalformedPacket),
        (0x03, ReasonCode::ProtocolError),
        (0x30, ReasonCode::ProtocolError),
    ];
    for (option, reason) in cases {
        let mut client = RawClient::connected(&node, V5, "a");
        client.send_bytes(&[0x82, 7, 0, 1, 0, 0, 1, b'a', option]);
        client.expect_end(reason);
    }
    // [MQTT-3.8.3-4 of 3.1.1]
    for option in [0x03, 0x04, 0x80] {
        let mut client = RawClient::connected(&node, V311, "a");
        client.send_bytes(&[0x82, 6, 0, 1, 0, 1, b'a', option]);
        client.expect_closed();
    }
}
