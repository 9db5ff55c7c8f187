//! Wills: published when a connection ends without a normal DISCONNECT.

use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, PublishProperties, QoS, Will};
use millrace::mqtt::properties::UserProperties;

use crate::fixture::Place;
use crate::packets::{ALL_VERSIONS, V5, V31, V311, connect, disconnect, publish, will};
use crate::raw::RawClient;

on_both_journals![
    a_lost_connection_publishes_the_will,
    a_normal_disconnect_takes_the_will_away,
    disconnect_with_will_publishes_it,
    a_protocol_error_publishes_the_will,
    a_take_over_publishes_the_will,
    a_will_without_a_connack_is_not_published,
    the_will_of_a_silent_client_is_published,
    a_will_has_its_qos,
    will_properties_arrive,
    a_will_of_qos_2_is_published_once,
    a_will_that_was_taken_away_stays_away_when_the_client_is_back_at_once,
    a_will_under_dollar_is_refused,
    a_will_comes_after_what_the_client_published,
];

/// [MQTT-3.1.2-8]
fn a_lost_connection_publishes_the_will(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("wills/mortal", b"gone"));
        RawClient::connected_with(&node, &asked).break_off();
        let message = subscriber.expect_text("wills/mortal", "gone");
        assert_eq!((message.qos(), message.retain), (QoS::AtLeastOnce, false));
    }
}

/// [MQTT-3.1.2-10, 3.14.4-3]
fn a_normal_disconnect_takes_the_will_away(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("wills/mortal", b"gone"));
        let mut client = RawClient::connected_with(&node, &asked);
        client.send(&disconnect(ReasonCode::Success));
        client.expect_closed();
        RawClient::connected(&node, V311, "publisher").publish("marker", "m");
        subscriber.expect_text("marker", "m");
    }
}

/// [MQTT-3.14.4-3]: 0x04, and every failure the client names.
fn disconnect_with_will_publishes_it(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError, ReasonCode::QuotaExceeded] {
        let mut asked = connect(V5, "mortal");
        asked.will = Some(will("wills/mortal", b"gone"));
        let mut client = RawClient::connected_with(&node, &asked);
        client.send(&disconnect(reason));
        client.expect_closed();
        subscriber.expect_text("wills/mortal", "gone");
    }
}

/// MQTT5 §3.1.2.5
fn a_protocol_error_publishes_the_will(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("wills/mortal", b"gone"));
        let mut client = RawClient::connected_with(&node, &asked);
        client.send_bytes(&[0x00, 0x00]);
        client.expect_end(ReasonCode::MalformedPacket);
        subscriber.expect_text("wills/mortal", "gone");
    }
}

/// MQTT5 §3.1.2.5: the older connection was closed without a DISCONNECT of its client.
fn a_take_over_publishes_the_will(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("wills/mortal", b"older"));
        let mut older = RawClient::connected_with(&node, &asked);
        asked.will = Some(will("wills/mortal", b"newer"));
        let mut newer = RawClient::connected_with(&node, &asked);
        older.expect_end(ReasonCode::SessionTakenOver);
        subscriber.expect_text("wills/mortal", "older");
        newer.send(&disconnect(ReasonCode::Success));
        newer.expect_closed();
    }
}

/// [MQTT-3.1.2-7]: a will belongs to a connection that was accepted.
fn a_will_without_a_connack_is_not_published(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    let mut asked = connect(V5, "mortal");
    asked.will = Some(will("wills/mortal", b"gone"));
    asked.properties.authentication_method = Some("none we know");
    let mut refused = RawClient::open(&node, V5);
    refused.send_connect(&asked);
    refused.expect_connack(|connack| assert!(connack.reason.is_error()));
    refused.expect_closed();
    RawClient::connected(&node, V311, "publisher").publish("marker", "m");
    subscriber.expect_text("marker", "m");
}

/// [MQTT-3.1.2-8, 3.1.2-22]
fn the_will_of_a_silent_client_is_published(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in [V311, V5] {
        let mut asked = connect(version, "mortal");
        asked.keep_alive_s = 1;
        asked.will = Some(will("wills/mortal", b"silent"));
        let mut client = RawClient::connected_with(&node, &asked);
        client.expect_end(ReasonCode::KeepAliveTimeout);
        subscriber.expect_text("wills/mortal", "silent");
    }
}

/// MQTT5 §3.1.2.6
fn a_will_has_its_qos(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    for version in ALL_VERSIONS {
        let mut asked = connect(version, "mortal");
        let mut last = will("wills/mortal", b"");
        last.qos = QoS::AtMostOnce;
        asked.will = Some(last);
        RawClient::connected_with(&node, &asked).break_off();
        // [MQTT-3.1.3-11 and §3.1.3.4]: a will may be empty.
        assert_eq!(subscriber.expect_text("wills/mortal", "").qos(), QoS::AtMostOnce);
    }
}

/// [MQTT-3.1.3-10] and MQTT5 §3.1.3.2
fn will_properties_arrive(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::AtLeastOnce);
    let mut asked = connect(V5, "mortal");
    let mut last = will("wills/mortal", b"gone");
    last.properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_s: Some(500),
        response_topic: Some("condolences"),
        correlation_data: Some(b"\x07"),
        user_properties: UserProperties::Pairs(&[("b", "1"), ("a", "2"), ("b", "1")]),
        content_type: Some("text/plain"),
        ..PublishProperties::default()
    };
    asked.will = Some(last);
    RawClient::connected_with(&node, &asked).break_off();
    let message = subscriber.expect_text("wills/mortal", "gone");
    assert_eq!(message.payload_is_utf8, Some(true));
    assert!((1..=500).contains(&message.expiry_s.unwrap()));
    assert_eq!(message.response_topic.as_deref(), Some("condolences"));
    assert_eq!(message.correlation_data.as_deref(), Some(&[7][..]));
    assert_eq!(message.user_properties, [("b", "1"), ("a", "2"), ("b", "1")].map(|(n, v)| (n.into(), v.into())));
    assert_eq!(message.content_type.as_deref(), Some("text/plain"));
}

/// MQTT5 §3.1.2.6: in the log it is one record, as any message.
fn a_will_of_qos_2_is_published_once(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "wills/#", QoS::ExactlyOnce);
    for version in ALL_VERSIONS {
        let text = format!("gone {version:?}");
        let mut asked = connect(version, "mortal");
        asked.will = Some(Will { qos: QoS::ExactlyOnce, ..will("wills/mortal", text.as_bytes()) });
        RawClient::connected_with(&node, &asked).break_off();
        assert_eq!(subscriber.expect_text("wills/mortal", &text).qos(), QoS::ExactlyOnce);
    }
    assert_eq!(place.read(&place.default_topic()).len(), ALL_VERSIONS.len());
}

/// [MQTT-3.1.2-10, 3.14.4-3]: DISCONNECT comes before the CONNECT that follows it.
fn a_will_that_was_taken_away_stays_away_when_the_client_is_back_at_once(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V5, "#", QoS::AtLeastOnce);
    for round in 0..30 {
        let version = ALL_VERSIONS[round % 3];
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("wills/mortal", b"gone"));
        let mut client = RawClient::connected_with(&node, &asked);
        client.send(&disconnect(ReasonCode::Success));
        client.expect_closed();
    }
    RawClient::connected(&node, V311, "mortal").publish("marker", "m");
    subscriber.expect_text("marker", "m");
}

/// What a client may not publish it may not leave behind either.
fn a_will_under_dollar_is_refused(place: &Place) {
    let node = place.start();
    for version in [V31, V311, V5] {
        let mut asked = connect(version, "mortal");
        asked.will = Some(will("$SYS/mortal", b"gone"));
        let mut client = RawClient::open(&node, version);
        client.send_connect(&asked);
        if version == V5 {
            client.expect_connack(|connack| assert_eq!(connack.reason, ReasonCode::TopicNameInvalid));
        }
        client.expect_closed();
    }
}

/// On the same topic: the will is the client's last word.
fn a_will_comes_after_what_the_client_published(place: &Place) {
    let node = place.start();
    let mut subscriber = RawClient::subscribed(&node, V311, "state", QoS::AtLeastOnce);
    for round in 0..20 {
        let mut asked = connect(V311, "mortal");
        asked.will = Some(will("state", b"gone"));
        let mut client = RawClient::connected_with(&node, &asked);
        let online = format!("online {round}");
        let bytes = client.wire(&Packet::Publish(publish("state", online.as_bytes())));
        client.send_bytes(&bytes);
        client.send_bytes(&[0x00, 0x00]);
        client.expect_closed();
        subscriber.expect_text("state", &online);
        subscriber.expect_text("state", "gone");
    }
}
