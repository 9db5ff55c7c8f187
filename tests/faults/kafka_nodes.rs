//! Kafka's nodes die, stop and stand still.

use std::time::Duration;

use millrace::clock;
use tokio::time::sleep;

use crate::cluster::{ONE, THREE};
use crate::stage::{PLAIN, SAFE, Topic, run};

const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(40);

#[test]
fn the_only_node_is_killed_and_started() {
    run("the only node killed, then started", ONE, PLAIN, async |stage| {
        stage.cluster.kill(1);
        sleep(Duration::from_secs(1)).await;
        stage.cluster.restart(1);
    });
}

#[test]
fn the_only_node_is_paused_for_5_s() {
    run("the only node paused 5 s", ONE, PLAIN, async |stage| {
        stage.cluster.pause(1);
        sleep(SHORT).await;
        stage.cluster.resume(1);
    });
}

#[test]
#[ignore = "takes more than 40 s"]
fn the_only_node_is_paused_for_40_s() {
    run("the only node paused 40 s", ONE, PLAIN, async |stage| {
        stage.cluster.pause(1);
        sleep(LONG).await;
        stage.cluster.resume(1);
    });
}

#[test]
#[ignore = "takes more than 40 s"]
fn the_only_node_is_stopped_in_order_and_started() {
    run("the only node stopped (SIGTERM), started 20 s later", ONE, PLAIN, async |stage| {
        stage.cluster.stop();
        sleep(Duration::from_secs(20)).await;
        stage.cluster.start_again();
    });
}

#[test]
#[ignore = "longer than the delivery time-out of 2 minutes"]
fn the_only_node_is_away_longer_than_appends_wait() {
    run("the only node killed, started 150 s later", ONE, PLAIN, async |stage| {
        stage.cluster.kill(1);
        sleep(Duration::from_secs(150)).await;
        stage.cluster.restart(1);
    });
}

#[test]
#[ignore = "starts three nodes"]
fn a_leader_of_three_is_killed_and_started() {
    run("one of three nodes killed, started later", THREE, SAFE, async |stage| {
        stage.cluster.kill(1);
        stage.wait_written(clock::now(), "with two nodes").await;
        sleep(SHORT).await;
        stage.cluster.restart(1);
    });
}

#[test]
#[ignore = "starts three nodes"]
fn a_leader_of_three_is_paused_for_5_s() {
    run("one of three nodes paused 5 s", THREE, SAFE, async |stage| {
        stage.cluster.pause(1);
        sleep(SHORT).await;
        stage.cluster.resume(1);
    });
}

#[test]
#[ignore = "starts three nodes, takes more than 40 s"]
fn a_leader_of_three_is_paused_for_40_s() {
    run("one of three nodes paused 40 s", THREE, SAFE, async |stage| {
        stage.cluster.pause(1);
        sleep(LONG).await;
        stage.cluster.resume(1);
    });
}

#[test]
#[ignore = "starts three nodes, takes more than 40 s"]
fn all_of_three_are_paused_for_40_s() {
    run("all of three nodes paused 40 s", THREE, SAFE, async |stage| {
        for node in stage.cluster.nodes() {
            stage.cluster.pause(node);
        }
        sleep(LONG).await;
        for node in stage.cluster.nodes() {
            stage.cluster.resume(node);
        }
    });
}

#[test]
#[ignore = "starts three nodes"]
fn too_few_replicas_are_left_and_come_back() {
    let all = Topic { configs: &[("min.insync.replicas", "3")], ..SAFE };
    run("too few in-sync replicas: one of three killed where all must have a record", THREE, all, async |stage| {
        stage.cluster.kill(3);
        sleep(Duration::from_secs(20)).await;
        stage.cluster.restart(3);
    });
}

#[test]
#[ignore = "starts three nodes, longer than the delivery time-out of 2 minutes"]
fn too_few_replicas_are_left_for_longer_than_appends_wait() {
    let all = Topic { configs: &[("min.insync.replicas", "3")], ..SAFE };
    run("too few in-sync replicas for 140 s", THREE, all, async |stage| {
        stage.cluster.kill(3);
        sleep(Duration::from_secs(140)).await;
        stage.cluster.restart(3);
    });
}

#[test]
#[ignore = "starts three nodes, longer than the delivery time-out of 2 minutes"]
fn two_of_three_are_away_longer_than_appends_wait() {
    run("two of three nodes killed, started 140 s later", THREE, SAFE, async |stage| {
        stage.cluster.kill(1);
        stage.cluster.kill(2);
        sleep(Duration::from_secs(140)).await;
        stage.cluster.restart(1);
        stage.cluster.restart(2);
    });
}

#[test]
#[ignore = "starts three nodes"]
fn two_of_three_are_killed_and_come_back() {
    run("two of three nodes killed, started 15 s later", THREE, SAFE, async |stage| {
        stage.cluster.kill(1);
        stage.cluster.kill(2);
        sleep(Duration::from_secs(15)).await;
        stage.cluster.restart(1);
        stage.cluster.restart(2);
    });
}

#[test]
#[ignore = "starts three nodes"]
fn nodes_are_restarted_one_after_the_other() {
    run("three nodes restarted in turn (SIGTERM)", THREE, SAFE, async |stage| {
        for node in stage.cluster.nodes() {
            stage.cluster.restart(node);
            stage.wait_written(clock::now(), "between restarts").await;
        }
    });
}
