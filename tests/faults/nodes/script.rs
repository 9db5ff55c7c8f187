//! What is done to a run.

use std::time::Duration;

use millrace::ops::tasks;
use tokio::time::sleep;

use super::history::Deed;
use super::scene::{MESSAGES, NODES, SESSIONS, Scene};
use super::storm::blow;

const STILL: Duration = Duration::from_secs(40);
const STORM: Duration = Duration::from_secs(8);
/// A foreign transaction is given up by Kafka after so long.
const TRANSACTION_MS: &str = "15000";
/// After the sessions' kafka topic is back, every client has been told.
const TOLD: Duration = Duration::from_secs(30);

/// Three kills, one pause of three seconds.
pub async fn quick(scene: &mut Scene) {
    for node in 0..NODES {
        kill(scene, node, 200..1_500).await;
        scene.wait_ready(node).await;
        let calm = scene.millis(1_000..2_000);
        sleep(calm).await;
    }
    pause(scene, 0, 3).await;
}

/// All that sessions survive: 55 kills.
pub async fn whole(scene: &mut Scene) {
    kills(scene).await;
    pauses(scene).await;
    kafka_hurt(scene).await;
    cuts(scene).await;
    foreign_transaction(scene).await;
    kafka_still(scene).await;
    kills(scene).await;
}

/// 52 kills, with Kafka killed and paused and nodes standing still in between.
pub async fn kills_among_faults(scene: &mut Scene) {
    kills(scene).await;
    kafka_hurt(scene).await;
    for node in 0..NODES {
        pause(scene, node, 3).await;
    }
    for _ in 0..3 {
        quick_kills(scene).await;
    }
}

/// 24 kills: one at a time, two at a time, and again before the node is back.
pub async fn kills(scene: &mut Scene) {
    scene.note("kills, one at a time");
    for _ in 0..10 {
        let node = scene.any_node();
        kill(scene, node, 100..4_000).await;
        scene.wait_ready(node).await;
        let calm = scene.millis(500..4_000);
        sleep(calm).await;
    }
    scene.wait_all_served("after kills").await;
    scene.note("kills, two at a time");
    for _ in 0..3 {
        let left = scene.any_node();
        let others: Vec<usize> = (0..NODES).filter(|node| *node != left).collect();
        for &node in &others {
            scene.fleet.kill(node);
        }
        let down = scene.millis(500..6_000);
        sleep(down).await;
        for &node in &others {
            scene.fleet.start(node);
        }
        scene.wait_all_ready().await;
        let calm = scene.millis(500..4_000);
        sleep(calm).await;
    }
    scene.wait_all_served("after kills of two").await;
    quick_kills(scene).await;
}

/// 8 kills.
async fn quick_kills(scene: &mut Scene) {
    scene.note("kills again and again, ready or not");
    for _ in 0..8 {
        let node = scene.any_node();
        kill(scene, node, 0..500).await;
        let calm = scene.millis(100..1_500);
        sleep(calm).await;
    }
    scene.wait_all_ready().await;
    scene.wait_all_served("after quick kills").await;
}

/// Nodes stand still for 3 and for 30 s, with appends on their way.
pub async fn pauses(scene: &mut Scene) {
    for node in 0..NODES {
        pause(scene, node, 3).await;
    }
    for _ in 0..2 {
        let node = scene.any_node();
        pause(scene, node, 30).await;
        scene.wait_ready(node).await;
        scene.wait_all_served("after 30 s of standing still").await;
    }
}

/// Kafka's nodes die and stand still, and Millrace's with them.
pub async fn kafka_hurt(scene: &mut Scene) {
    for victim in 1..=2 {
        scene.kafka_hurt(&format!("Kafka node {victim} killed"));
        scene.cluster.kill(victim);
        let node = scene.any_node();
        kill(scene, node, 500..2_000).await;
        sleep(Duration::from_secs(5)).await;
        scene.cluster.restart(victim);
        scene.wait_all_ready().await;
        scene.wait_all_served("after a Kafka node was killed").await;
    }
    for seconds in [6, 20] {
        let victim = 1 + u32::try_from(scene.any_node()).unwrap();
        scene.kafka_hurt(&format!("Kafka node {victim} paused {seconds} s"));
        scene.cluster.pause(victim);
        let node = scene.any_node();
        kill(scene, node, 500..2_000).await;
        sleep(Duration::from_secs(seconds)).await;
        scene.cluster.resume(victim);
        scene.wait_all_ready().await;
        scene.wait_all_served("after a Kafka node stood still").await;
    }
}

/// All of Kafka stands still, and no connection may be closed.
pub async fn kafka_still(scene: &mut Scene) {
    scene.wait_all_ready().await;
    scene.wait_all_served("before Kafka stands still").await;
    scene.kafka_hurt("all of Kafka paused");
    scene.recorder.deed(Deed::StayBegins);
    for node in scene.cluster.nodes() {
        scene.cluster.pause(node);
    }
    sleep(STILL).await;
    for node in scene.cluster.nodes() {
        scene.cluster.resume(node);
    }
    scene.wait_all_served("after Kafka stood still").await;
    scene.recorder.deed(Deed::StayEnds);
}

/// Clients and the load balancer cut connections; a thousand new ones come each second, and a node dies among them.
pub async fn cuts(scene: &mut Scene) {
    for node in 0..NODES {
        scene.cut_clients();
        let calm = scene.millis(500..2_000);
        sleep(calm).await;
        scene.cut_node(node);
        let calm = scene.millis(500..2_000);
        sleep(calm).await;
    }
    scene.wait_all_served("after cuts").await;
    scene.note("a storm of connections");
    let storm = tasks::spawn("storm", blow(scene.balancer.address, scene.recorder.now_us(), STORM));
    sleep(STORM / 2).await;
    let node = scene.any_node();
    kill(scene, node, 500..1_000).await;
    let storm = storm.await.unwrap();
    scene.note(&format!("the storm is over: {storm:?}"));
    scene.wait_all_ready().await;
    scene.wait_all_served("after the storm").await;
}

/// A foreign program leaves a transaction open, sessions move, and it is aborted by its time-out.
pub async fn foreign_transaction(scene: &mut Scene) {
    for _ in 0..2 {
        scene.note("a foreign transaction hangs");
        scene.cluster.foreign(&[MESSAGES, "hang", "none", "20", "headers", TRANSACTION_MS]);
        let node = scene.any_node();
        kill(scene, node, 500..2_000).await;
        scene.wait_ready(node).await;
        scene.cut_clients();
        scene.wait_all_served("after a hanging transaction").await;
    }
}

/// The kafka topic of sessions is deleted and made again: sessions begin anew, messages stay, and the new sessions survive
/// their nodes as the old ones did.
pub async fn sessions_gone(scene: &mut Scene) {
    scene.note("the kafka topic of sessions is deleted");
    scene.recorder.deed(Deed::SessionsDeleted);
    scene.cluster.tool("topics", &["--delete", "--topic", SESSIONS]);
    sleep(Duration::from_secs(2)).await;
    let printed = scene.fleet.tool(&["topics", "apply"]);
    scene.note(&format!("and made again: {}", printed.lines().next().unwrap_or_default()));
    scene.wait_all_ready().await;
    scene.cut_clients();
    sleep(TOLD).await;
    for node in 0..NODES {
        scene.cut_node(node);
    }
    scene.wait_all_served("after the sessions were deleted").await;
    scene.recorder.deed(Deed::SessionsBack);
    for node in 0..NODES {
        kill(scene, node, 500..1_000).await;
        scene.wait_ready(node).await;
        scene.wait_all_served("with new sessions").await;
    }
}

async fn kill(scene: &mut Scene, node: usize, down_ms: std::ops::Range<u64>) {
    let down = scene.millis(down_ms);
    scene.kill_and_start(node, down).await;
}

async fn pause(scene: &mut Scene, node: usize, seconds: u64) {
    scene.note(&format!("node {node} stands still for {seconds} s"));
    scene.fleet.pause(node);
    sleep(Duration::from_secs(seconds)).await;
    scene.fleet.resume(node);
    sleep(Duration::from_secs(2)).await;
}
