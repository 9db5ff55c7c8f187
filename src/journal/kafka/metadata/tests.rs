use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition};

use super::*;

fn node(id: i32) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(id.into())
        .with_host(StrBytes::from_static_str("kafka"))
        .with_port(9000 + id)
}

fn topic(name: &str, id: u128, leaders: &[(i32, i32)]) -> MetadataResponseTopic {
    let partitions = (0..).zip(leaders).map(|(number, (leader, epoch))| {
        MetadataResponsePartition::default()
            .with_partition_index(number)
            .with_leader_id((*leader).into())
            .with_leader_epoch(*epoch)
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(Uuid::from_u128(id))
        .with_partitions(partitions.collect())
}

fn answer(topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
    MetadataResponse::default().with_brokers(vec![node(1), node(2)]).with_controller_id(2.into()).with_topics(topics)
}

fn leader(cluster: &Cluster, number: u32) -> (Option<i32>, i32) {
    let leader = cluster.leader(Partition { topic: TopicIndex(0), number }).unwrap();
    (leader.node, leader.epoch)
}

fn after(cluster: &Cluster, topics: Vec<MetadataResponseTopic>) -> Cluster {
    cluster.after(&answer(topics), &[topic_name("a")], clock::now())
}

#[test]
fn an_older_leader_does_not_replace_a_newer_one() {
    let cluster = after(&Cluster::default(), vec![topic("a", 1, &[(1, 5), (2, 3)])]);
    assert_eq!((leader(&cluster, 0), leader(&cluster, 1)), ((Some(1), 5), (Some(2), 3)));
    assert_eq!((cluster.version, cluster.controller), (1, Some(2)));
    let cluster = after(&cluster, vec![topic("a", 1, &[(2, 4), (1, 4)])]);
    assert_eq!((leader(&cluster, 0), leader(&cluster, 1)), ((Some(1), 5), (Some(1), 4)));
}

#[test]
fn an_election_leaves_a_partition_without_leader() {
    let cluster = after(&Cluster::default(), vec![topic("a", 1, &[(1, 5)])]);
    let cluster = after(&cluster, vec![topic("a", 1, &[(-1, 6)])]);
    assert_eq!(leader(&cluster, 0), (None, 6));
}

#[test]
fn a_recreated_topic_starts_anew() {
    let cluster = after(&Cluster::default(), vec![topic("a", 1, &[(1, 5), (1, 5)])]);
    let cluster = after(&cluster, vec![topic("a", 2, &[(2, 0)])]);
    assert_eq!((leader(&cluster, 0), cluster.partitions(TopicIndex(0))), ((Some(2), 0), 1));
    assert_eq!(cluster.topics[0].id, Uuid::from_u128(2));
}

#[test]
fn what_an_answer_does_not_know_is_kept_and_noted() {
    let cluster = after(&Cluster::default(), vec![topic("a", 1, &[(1, 5)])]);
    let unknown = topic("a", 0, &[]).with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION);
    for answer in [vec![], vec![unknown]] {
        let gone = after(&cluster, answer);
        assert_eq!(leader(&gone, 0), (Some(1), 5));
        assert!(gone.topics[0].missing_since.is_some());
        let back = after(&gone, vec![topic("a", 1, &[(1, 5)])]);
        assert_eq!(back.topics[0].missing_since, None);
    }
    let passing = topic("a", 0, &[]).with_error_code(5);
    assert_eq!(after(&cluster, vec![passing]).topics[0].missing_since, None);
}

#[test]
fn added_partitions_are_added_and_none_is_taken_away() {
    let cluster = after(&Cluster::default(), vec![topic("a", 1, &[(1, 5)])]);
    let cluster = after(&cluster, vec![topic("a", 1, &[(1, 5), (2, 0), (2, 0)])]);
    assert_eq!(cluster.partitions(TopicIndex(0)), 3);
    let cluster = after(&cluster, vec![topic("a", 1, &[(1, 5)])]);
    assert_eq!(cluster.partitions(TopicIndex(0)), 3);
}
