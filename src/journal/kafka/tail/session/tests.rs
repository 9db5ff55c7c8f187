use kafka_protocol::messages::fetch_request::FetchRequest;

use super::*;
use crate::journal::TopicIndex;
use crate::journal::kafka::metadata::topic_name;

fn asking() -> Asking {
    Asking {
        names: vec![topic_name("a"), topic_name("b")],
        isolation: Isolation::ReadCommitted,
        wait_ms: 500,
        bytes_max: 1 << 20,
        partition_bytes_max: 1 << 20,
    }
}

/// Partitions as (kafka topic, number, offset).
fn wanted(partitions: &[(u16, u32, i64)]) -> BTreeMap<Partition, Wanted> {
    let wanted = partitions.iter().map(|(topic, number, offset)| {
        let partition = Partition { topic: TopicIndex(*topic), number: *number };
        let topic_id = Uuid::from_u128(u128::from(*topic) + 1);
        (partition, Wanted { topic_id, offset: *offset, leader_epoch: 3, last_epoch: -1 })
    });
    wanted.collect()
}

fn asked(request: &FetchRequest) -> Vec<(String, i32, i64)> {
    let topics = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|part| (topic.topic.to_string(), part.partition, part.fetch_offset))
    });
    topics.collect()
}

fn forgotten(request: &FetchRequest) -> Vec<(String, i32)> {
    let topics = request.forgotten_topics_data.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|number| (topic.topic.to_string(), *number))).collect()
}

#[test]
fn only_what_changed_is_asked_again() {
    let mut session = Session::default();
    let first = session.request(&asking(), wanted(&[(0, 0, 5), (0, 1, 6), (1, 0, 7)]));
    assert_eq!((first.session_id, first.session_epoch), (0, 0));
    assert_eq!(asked(&first), [("a".into(), 0, 5), ("a".into(), 1, 6), ("b".into(), 0, 7)]);
    session.on_answer(77);

    let idle = session.request(&asking(), wanted(&[(0, 0, 5), (0, 1, 6), (1, 0, 7)]));
    assert_eq!((idle.session_id, idle.session_epoch), (77, 1));
    assert_eq!((asked(&idle), forgotten(&idle)), (vec![], vec![]));
    session.on_answer(77);

    let moved = session.request(&asking(), wanted(&[(0, 0, 5), (0, 1, 9), (1, 4, 0)]));
    assert_eq!((moved.session_id, moved.session_epoch), (77, 2));
    assert_eq!(asked(&moved), [("a".into(), 1, 9), ("b".into(), 4, 0)]);
    assert_eq!(forgotten(&moved), [("b".into(), 0)]);
}

#[test]
fn a_recreated_topic_is_forgotten_under_its_old_id() {
    let mut session = Session::default();
    session.request(&asking(), wanted(&[(0, 0, 5)]));
    session.on_answer(77);
    let mut new = wanted(&[(0, 0, 0)]);
    for wanted in new.values_mut() {
        wanted.topic_id = Uuid::from_u128(9);
    }
    let request = session.request(&asking(), new);
    assert_eq!(request.forgotten_topics_data[0].topic_id, Uuid::from_u128(1));
    assert_eq!(request.topics[0].topic_id, Uuid::from_u128(9));
}

#[test]
fn a_node_without_room_for_sessions_is_asked_in_full() {
    let mut session = Session::default();
    for _ in 0..2 {
        let request = session.request(&asking(), wanted(&[(0, 0, 5)]));
        assert_eq!((request.session_id, request.session_epoch), (0, 0));
        assert_eq!(asked(&request).len(), 1);
        session.on_answer(0);
    }
}

#[test]
fn after_a_reset_everything_is_asked_again() {
    let mut session = Session::default();
    session.request(&asking(), wanted(&[(0, 0, 5)]));
    session.on_answer(77);
    session.reset();
    let request = session.request(&asking(), wanted(&[(0, 0, 5)]));
    assert_eq!((request.session_id, request.session_epoch, asked(&request).len()), (0, 0, 1));
}

#[test]
fn numbers_begin_again_after_the_largest() {
    let mut session = Session { state: State::Open { id: 5, number: i32::MAX }, remembered: BTreeMap::new() };
    session.on_answer(5);
    let request = session.request(&asking(), wanted(&[]));
    assert_eq!((request.session_id, request.session_epoch), (5, 1));
}
