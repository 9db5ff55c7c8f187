//! What happens to a kafka topic: too large records, quotas, moves, its end and a new beginning.

use std::time::Duration;

use millrace::clock;
use millrace::journal::kafka::KafkaOptions;
use millrace::journal::{Outcome, Refusal};
use tokio::time::sleep;

use crate::cluster::{ONE, THREE};
use crate::ledger::Source;
use crate::load::append;
use crate::stage::{PARTITIONS, PLAIN, SAFE, Stage, TOPIC, Topic, create, run, wait};

const SMALL: usize = 300;
const LARGE: usize = 60_000;

#[test]
fn records_that_became_too_large_are_refused_and_their_neighbours_written() {
    run("oversize records: `max.message.bytes` lowered", ONE, PLAIN, async |stage| {
        let max = "max.message.bytes=20000";
        stage.cluster.tool("configs", &["--alter", "--topic", TOPIC, "--add-config", max]);
        let mut large = Vec::new();
        let mut small = Vec::new();
        for round in 0..30_u32 {
            let number = round % PARTITIONS;
            for place in 0..20 {
                let bytes = if place == 10 { LARGE } else { SMALL };
                let id = append(&*stage.journal, &stage.ledger, Source::Scenario, number, bytes);
                if bytes == LARGE { large.push(id) } else { small.push(id) }
            }
            sleep(Duration::from_millis(50)).await;
        }
        // Neighbours that alone make a batch which is too large.
        small.extend((0..200).map(|_| append(&*stage.journal, &stage.ledger, Source::Scenario, 0, SMALL)));
        wait("outcomes of the burst", async || {
            let entries = stage.ledger.entries();
            large.iter().chain(&small).all(|id| !entries[usize::try_from(*id).unwrap()].outcomes.is_empty())
        })
        .await;
        let entries = stage.ledger.entries();
        let outcome = |id: &u64| entries[usize::try_from(*id).unwrap()].outcomes[0].0;
        assert!(large.iter().all(|id| outcome(id) == Outcome::Refused(Refusal::TooLarge)));
        assert!(small.iter().all(|id| matches!(outcome(id), Outcome::Written(_))));
        stage.cluster.tool("configs", &["--alter", "--topic", TOPIC, "--delete-config", "max.message.bytes"]);
    });
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_written_and_followed_anew() {
    run("topic deleted, created again at once", ONE, PLAIN, async |stage| {
        delete(stage).await;
        create_again(stage, PLAIN).await;
    });
}

#[test]
#[ignore = "takes more than 30 s"]
fn a_topic_that_is_away_for_long_is_written_and_followed_anew() {
    run("topic deleted, created again 25 s later", ONE, PLAIN, async |stage| {
        delete(stage).await;
        sleep(Duration::from_secs(25)).await;
        create_again(stage, PLAIN).await;
    });
}

#[test]
#[ignore = "starts three nodes"]
fn a_topic_on_three_nodes_is_deleted_and_created_again() {
    run("topic on three nodes deleted, created again at once", THREE, SAFE, async |stage| {
        delete(stage).await;
        create_again(stage, SAFE).await;
    });
}

#[test]
#[ignore = "longer than the delivery time-out of 2 minutes"]
fn a_topic_that_comes_back_with_fewer_partitions_refuses_what_was_for_the_others() {
    run("topic deleted, created again with half of its partitions", ONE, PLAIN, async |stage| {
        delete(stage).await;
        stage.partitions = PARTITIONS / 2;
        create_again(stage, Topic { partitions: stage.partitions, ..PLAIN }).await;
    });
}

async fn delete(stage: &mut Stage) {
    stage.expected_events = &["Recreated"];
    stage.cluster.tool("topics", &["--delete", "--topic", TOPIC]);
    wait("the topic to be deleted", async || {
        let listed = stage.cluster.tool("topics", &["--list"]);
        !listed.lines().any(|name| name == TOPIC)
    })
    .await;
    // Until every node knows.
    sleep(Duration::from_secs(1)).await;
}

async fn create_again(stage: &mut Stage, topic: Topic) {
    stage.life = Some(clock::now());
    create(&KafkaOptions::new(stage.cluster.bootstrap.clone()), &topic).await;
}

#[test]
#[ignore = "takes more than 30 s"]
fn a_quota_slows_appends_and_breaks_no_promise() {
    run("throttled to a tenth (`producer_byte_rate`) for 25 s", ONE, PLAIN, async |stage| {
        let client = ["--alter", "--entity-type", "clients", "--entity-name", "millrace"];
        stage.cluster.tool("configs", &[&client[..], &["--add-config", "producer_byte_rate=8000"]].concat());
        sleep(Duration::from_secs(25)).await;
        stage.cluster.tool("configs", &[&client[..], &["--delete-config", "producer_byte_rate"]].concat());
    });
}

#[test]
#[ignore = "starts three nodes"]
fn leaders_that_move_are_followed() {
    run("leaders moved to other replicas, three times", THREE, SAFE, async |stage| {
        for turn in 1..=3 {
            assign(stage, turn, 3);
            stage.cluster.tool("leader-election", &["--election-type", "preferred", "--all-topic-partitions"]);
            stage.wait_written(clock::now(), "after a move").await;
        }
    });
}

#[test]
#[ignore = "starts three nodes"]
fn partitions_that_move_to_other_nodes_are_followed() {
    let single = Topic { replication_factor: 1, ..PLAIN };
    run("partitions with one copy moved to another node, three times", THREE, single, async |stage| {
        for turn in 1..=3 {
            assign(stage, turn, 1);
            stage.wait_written(clock::now(), "after a move").await;
        }
    });
}

/// Puts partition `n` on the nodes from `n + turn` on.
fn assign(stage: &Stage, turn: u32, copies: u32) {
    let partitions: Vec<String> = (0..PARTITIONS)
        .map(|number| {
            let nodes: Vec<String> = (0..copies).map(|copy| ((number + turn + copy) % 3 + 1).to_string()).collect();
            format!(r#"{{"topic":"{TOPIC}","partition":{number},"replicas":[{}]}}"#, nodes.join(","))
        })
        .collect();
    let text = format!(r#"{{"version":1,"partitions":[{}]}}"#, partitions.join(","));
    let file = stage.cluster.file("assignment.json", &text);
    stage.cluster.tool("reassign-partitions", &["--reassignment-json-file", &file, "--execute"]);
}

#[test]
#[ignore = "takes more than 30 s"]
fn added_partitions_are_told_and_change_nothing_for_the_others() {
    run("partitions added", ONE, PLAIN, async |stage| {
        stage.expected_events = &["PartitionsAdded"];
        let more = (PARTITIONS * 2).to_string();
        stage.cluster.tool("topics", &["--alter", "--topic", TOPIC, "--partitions", &more]);
        // Nobody misses the new partitions, so they are found at the regular refresh.
        sleep(Duration::from_secs(32)).await;
    });
}
