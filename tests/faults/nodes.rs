//! Three nodes as real processes behind a load balancer, three Kafka nodes, clients as libraries have them: sessions
//! that last, QoS 1 and 2, wills. While they publish and receive, everything is killed, stopped and cut. At the end the
//! history is compared with what was promised: no acknowledged message lost, no message of QoS 2 twice, at applications
//! or in Kafka, order kept per topic, wills 0 or 1 times as due, sessions there.
//!
//! `MILLRACE_FAULTS_SEED` repeats a run's choices, `MILLRACE_FAULTS_KEEP` keeps its history and logs,
//! `MILLRACE_FAULTS_NODE_LOG` is the nodes' log filter.

mod balancer;
mod cast;
mod check;
#[cfg(test)]
mod check_tests;
mod client;
pub mod fleet;
pub mod history;
mod log;
mod machine;
#[cfg(test)]
mod machine_tests;
mod scene;
mod script;
mod storm;

use std::num::NonZeroU16;

use millrace::mqtt::packet::{ProtocolVersion, QoS};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::cast::{Cast, Ids, Part, Publishing, Role, Subscribing, everything, topic};
use self::scene::{Scene, summary};
use crate::cluster::{Cluster, ONE, Setup, THREE, is_wanted};
use crate::stage::runtime;
use crate::table::Row;

/// Runs a script; prints its row, fails if a promise was broken.
fn run(fault: &str, setup: Setup, pairs: usize, script: impl AsyncFnOnce(&mut Scene)) {
    if !is_wanted(fault) || !balancer::is_there(fault) {
        return;
    }
    let seed = std::env::var("MILLRACE_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::make_rng::<StdRng>().random());
    let cluster = Cluster::start(setup);
    let kafka = cluster.version.clone();
    let outcome = runtime().block_on(async {
        let mut scene = Scene::open(cluster, cast(pairs, seed), seed).await;
        scene.begin().await;
        scene.wait_all_served("before the faults").await;
        script(&mut scene).await;
        scene.wait_all_ready().await;
        scene.wait_all_served("after the faults").await;
        scene.end().await
    });
    Row { fault: fault.to_owned(), kafka, result: summary(&outcome.figures) }.publish();
    assert!(outcome.wrong.is_empty(), "{fault}, seed {seed}: {} promises broken, see above", outcome.wrong.len());
}

/// For each pair a publisher and its subscriber; and two that subscribe to everything.
fn cast(pairs: usize, seed: u64) -> Cast {
    let mut random = StdRng::seed_from_u64(seed);
    let mut clients = Vec::new();
    let publishers: Vec<usize> = (0..pairs).collect();
    for &number in &publishers {
        let qos = if number % 2 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let ids = if number / 2 % 2 == 0 { Ids::Lowest } else { Ids::Next };
        let publishing = Publishing { qos, window: random.random_range(2..20), ids };
        clients.push(part(format!("publisher-{number}"), number, Role::Publisher(publishing)));
    }
    let mut subscribe = |filter, topics: &[usize], qos, number: usize| {
        let receive_maximum = NonZeroU16::new(random.random_range(2..40)).unwrap();
        let is_slow = number % 2 == 1;
        let subscribing = Subscribing { filter, topics: topics.to_vec(), qos, receive_maximum, is_slow };
        clients.push(part(format!("subscriber-{number}"), number, Role::Subscriber(subscribing)));
    };
    for &number in &publishers {
        subscribe(topic(number), &[number], QoS::ExactlyOnce, number);
    }
    subscribe(everything(), &publishers, QoS::ExactlyOnce, pairs);
    subscribe(everything(), &publishers, QoS::AtLeastOnce, pairs + 1);
    Cast { clients }
}

/// One in three speaks MQTT 3.1.1.
fn part(id: String, number: usize, role: Role) -> Part {
    let version = if number % 3 == 1 { ProtocolVersion::V311 } else { ProtocolVersion::V5 };
    Part { id, version, role }
}

#[test]
fn nodes_are_killed_three_times_and_nothing_is_lost() {
    run("three nodes, three kills and a pause", ONE, 4, script::quick);
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn everything_is_killed_stopped_and_cut_and_nothing_is_lost() {
    run("three nodes on three of Kafka: the whole script", THREE, 12, script::whole);
}

#[test]
#[ignore = "takes ten minutes"]
fn nodes_are_killed_fifty_times_among_other_faults() {
    run("three nodes on three of Kafka: 52 kills among other faults", THREE, 12, script::kills_among_faults);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn nodes_are_killed_again_and_again() {
    run("three nodes on three of Kafka: kills", THREE, 12, script::kills);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn nodes_stand_still() {
    run("three nodes on three of Kafka: 3 and 30 s of SIGSTOP", THREE, 12, script::pauses);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn kafka_is_hurt_while_nodes_die() {
    run("three nodes on three of Kafka: Kafka killed and paused while nodes die", THREE, 12, script::kafka_hurt);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn nobody_is_disconnected_while_kafka_stands_still() {
    run("three nodes on three of Kafka: all of Kafka paused 40 s", THREE, 12, script::kafka_still);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn connections_are_cut() {
    run("three nodes on three of Kafka: connections cut, 1,000 connects per second", THREE, 12, script::cuts);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn a_foreign_transaction_is_open_during_a_take_over() {
    run("three nodes on three of Kafka: an open foreign transaction", THREE, 12, script::foreign_transaction);
}

#[test]
#[ignore = "starts three Kafka nodes"]
fn the_kafka_topic_of_sessions_is_deleted_and_made_again() {
    run(
        "three nodes on three of Kafka: the sessions' kafka topic deleted and made again",
        THREE,
        12,
        script::sessions_gone,
    );
}
