//! Positions and watermarks around slow and dying sessions (W1 to W5).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, Scene};
use crate::client::orders::{Order, Visit};

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "slow-session",
        text: "a session falls behind on a node whose watermarks go on; the node dies, the session goes on elsewhere",
        rules: &[Rule::W1, Rule::W2, Rule::W3, Rule::W4],
        plan: |plan, _| plan.clients = 3,
        play: |stage| Box::pin(slow_session(stage)),
    },
    Scene {
        name: "still-node",
        text: "a node stands still with a session that follows; another node's watermarks go on, and it takes over",
        rules: &[Rule::W5],
        plan: |plan, _| plan.clients = 3,
        play: |stage| Box::pin(still_node(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::W1, scene: Some("slow-session"), seed: 7 },
    Caught { rule: Rule::W2, scene: Some("slow-session"), seed: 3 },
    Caught { rule: Rule::W3, scene: Some("slow-session"), seed: 3 },
    Caught { rule: Rule::W4, scene: Some("slow-session"), seed: 3 },
    Caught { rule: Rule::W5, scene: Some("still-node"), seed: 1 },
];

/// Client 0 gets one message at a time, on node 0; client 1 keeps up, on `node`; client 2 publishes, on node 1.
async fn begin(stage: &mut Stage<'_>, node: usize) {
    stage.connect(0, Visit { receive_max: 1, ..Visit::to(0) }).await;
    stage.subscribe(0, "a/1", 1);
    stage.subscribe_all(1, node).await;
    stage.connect(2, Visit::to(1)).await;
    for _ in 0..stage.dice.between(0, 3) {
        stage.publish(2, "a/1", 1);
        stage.pause(1, 4_000).await;
    }
    stage.settled(0).await;
    // One that is acknowledged, so that a watermark speaks of it.
    stage.pause(6_000, 12_000).await;
}

async fn publish_some(stage: &mut Stage<'_>) {
    for _ in 0..stage.dice.between(2, 6) {
        stage.publish(2, "a/1", 1);
        stage.pause(1, 200).await;
    }
    stage.settled(2).await;
}

async fn go_on_elsewhere(stage: &mut Stage<'_>) {
    stage.crash(0, 30_000);
    stage.order(0, Order::Pay(true));
    stage.connect(0, Visit { receive_max: 1, ..Visit::to(1) }).await;
    stage.pause(1_000, 5_000).await;
}

async fn slow_session(stage: &mut Stage<'_>) {
    begin(stage, 0).await;
    stage.order(0, Order::Pay(false));
    publish_some(stage).await;
    // Soon after it was noticed, or later.
    let (low_ms, high_ms) = *stage.dice.pick(&[(5_000, 9_000), (9_000, 20_000)]);
    stage.pause(low_ms, high_ms).await;
    go_on_elsewhere(stage).await;
}

async fn still_node(stage: &mut Stage<'_>) {
    begin(stage, 1).await;
    stage.order(0, Order::Pay(false));
    stage.obeyed(0).await;
    stage.hold(0);
    publish_some(stage).await;
    stage.pause(10_000, 16_000).await;
    go_on_elsewhere(stage).await;
}
