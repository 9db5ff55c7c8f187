//! `mqtt.sessions` is deleted and made again while nodes run. An operator must not do that; if it happens, sessions begin
//! anew, and nothing of the old ones comes back.

use millrace::clock;
use millrace::journal::memory::{ForeignWrite, SharedLog};
use millrace::journal::{Isolation, Offset, Partition, TopicIndex};
use millrace::ledger::record::cluster::{ClusterKey, Node};
use millrace::message::RecordRef;
use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Packet, QoS};

use crate::fixture::{self, Journal, Place};
use crate::packets::{V5, lasting, publish_2};
use crate::raw::RawClient;

/// The second byte of a key of `mqtt.sessions`.
const CLAIMS: [u8; 2] = [1, 2];
/// A producer that no node has.
const LATE_PRODUCER: i64 = 4_712;

type Record = (Vec<u8>, Option<Vec<u8>>);

#[test]
fn sessions_begin_anew_and_late_records_of_the_old_ones_change_nothing() {
    fixture::on_memory("sessions begin anew", |place| begin_anew(place, false));
}

#[test]
fn a_late_claim_of_an_old_session_costs_a_connection_and_no_state() {
    fixture::on_memory("a late claim", |place| begin_anew(place, true));
}

/// What it had of the old sessions is brought to an end, so that it may say that nothing of it is on its way.
#[test]
fn a_node_that_lived_through_it_can_leave() {
    fixture::on_memory("it can leave", |place| {
        let Journal::Memory(log) = &place.journal else { panic!("on memory") };
        let node = place.start();
        let asked = lasting(V5, "client");
        let mut client = RawClient::resumed(&node, &asked, false);
        client.send_publish(&publish_2(9, "a", b"in flight"));
        client.expect_pubrec(9);
        for session_present in [false, true] {
            if !session_present {
                log.with(|log| log.recreate_topic(&place.kafka_topic("sessions")));
                client.expect_end(ReasonCode::ServerBusy);
            }
            client = RawClient::resumed(&node, &asked, session_present);
            client.publish_exactly_once("a", "new");
        }
        node.drain();
        node.ended();
        let records = read(log, &place.kafka_topic("cluster"));
        let nodes = records.iter().filter(|(key, _)| matches!(ClusterKey::decode(key), Ok(ClusterKey::Node(_))));
        let mut nodes = nodes.filter_map(|(_, value)| Node::decode(value.as_deref()?));
        assert!(nodes.any(|node| node.left));
    });
}

fn begin_anew(place: &Place, claims_are_late_too: bool) {
    let Journal::Memory(log) = &place.journal else { panic!("on memory") };
    let kafka_topic = place.kafka_topic("sessions");
    let (dying, next) = (place.start(), place.start());
    let asked = lasting(V5, "subscriber");
    let mut subscriber = RawClient::resumed(&dying, &asked, false);
    subscriber.subscribe("old", QoS::ExactlyOnce);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    // Its last claim is at an offset that the new kafka topic will not reach for long.
    for _ in 0..20 {
        subscriber.leave();
        subscriber = RawClient::resumed(&dying, &asked, true);
    }
    let mut publisher = RawClient::resumed(&dying, &lasting(V5, "publisher"), false);
    publisher.publish_exactly_once("a", "complete");
    subscriber.expect_text("a", "complete");
    publisher.send_publish(&publish_2(9, "a", b"in flight"));
    publisher.expect_pubrec(9);
    assert_eq!(subscriber.expect_unacknowledged().text(), "in flight");
    let absent = lasting(V5, "absent");
    RawClient::resumed(&dying, &absent, false).leave();
    let mut other = RawClient::resumed(&next, &lasting(V5, "other"), false);
    dying.write_down();
    let late = read(log, &kafka_topic);

    log.with(|log| log.recreate_topic(&kafka_topic));
    for client in [&mut subscriber, &mut publisher, &mut other] {
        client.expect_end(ReasonCode::ServerBusy);
    }
    let mut subscriber = RawClient::resumed(&dying, &asked, false);
    subscriber.subscribe("a", QoS::ExactlyOnce);
    let mut publisher = RawClient::resumed(&next, &lasting(V5, "publisher"), false);
    publisher.publish_exactly_once("a", "new");
    subscriber.expect_text("a", "new");

    // What had been on its way lands.
    let is_claim = |record: &Record| CLAIMS.contains(&record.0[1]);
    let late: Vec<Record> = late.into_iter().filter(|record| claims_are_late_too || !is_claim(record)).collect();
    assert!(late.len() > 20);
    write(log, &kafka_topic, &late);
    if claims_are_late_too {
        subscriber.expect_end(ReasonCode::SessionTakenOver);
        subscriber = RawClient::resumed(&dying, &asked, true);
        publisher = RawClient::resumed(&next, &lasting(V5, "publisher"), true);
    }
    RawClient::resumed(&next, &absent, false).leave();
    publisher.publish_unanswered("old", "not subscribed any more");
    publisher.publish_exactly_once("a", "newer");
    expect_next(&mut subscriber, "newer");
    dying.write_down();
    dying.kill();
    let mut subscriber = RawClient::resumed(&next, &asked, true);
    publisher.publish_unanswered("old", "not subscribed any more");
    publisher.publish_exactly_once("a", "newest");
    expect_next(&mut subscriber, "newest");
    subscriber.expect_nothing_before_pingresp();
}

/// The next message of a session that went on: PUBREL may come again, because nothing waits for a record of PUBCOMP.
fn expect_next(subscriber: &mut RawClient, text: &str) {
    loop {
        let frame = subscriber.expect();
        if let Packet::PubRel(ack) = frame.packet() {
            subscriber.complete_id(ack.packet_id.get());
            continue;
        }
        let message = frame.message();
        assert_eq!((message.topic.as_str(), message.text()), ("a", text));
        subscriber.acknowledge(&message);
        return;
    }
}

/// Every record of a kafka topic of one partition.
fn read(log: &SharedLog, kafka_topic: &str) -> Vec<Record> {
    let partition = Partition { topic: TopicIndex(0), number: 0 };
    let answer = log.with(|log| {
        let reader = log.open(vec![kafka_topic.to_owned()]);
        let answer = log.read(reader, partition, Offset(0), usize::MAX, Isolation::ReadUncommitted);
        log.close(reader);
        answer.unwrap()
    });
    let records = answer.batches.iter().flat_map(|batch| {
        batch
            .iter()
            .map(|record| (record.key.unwrap().to_vec(), record.value().map(<[u8]>::to_vec)))
            .collect::<Vec<_>>()
    });
    records.collect()
}

fn write(log: &SharedLog, kafka_topic: &str, records: &[Record]) {
    for (key, value) in records {
        let record =
            RecordRef { key: Some(key), value: value.as_deref(), headers: &[], timestamp_ms: clock::wall_ms() };
        let offset = log.with(|log| log.write_foreign(LATE_PRODUCER, kafka_topic, 0, &[record], ForeignWrite::Plain));
        assert!(offset.is_some());
    }
}
