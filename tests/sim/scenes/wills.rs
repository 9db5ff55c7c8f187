//! Wills that are due while nodes die (V1 to V5).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, Scene};
use crate::client::orders::{Order, Visit};
use crate::history::{Event, Name, Will};
use crate::run::MESSAGES;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "will-of-the-dead",
        text: "a node dies with a client that has a will; the client comes back, or a keeper finds it absent",
        rules: &[Rule::V1],
        plan: |_, _| {},
        play: |stage| Box::pin(of_the_dead(stage)),
    },
    Scene {
        name: "will-unrecorded",
        text: "a node dies when a will of its is in the log, and what the node wrote about it is not yet",
        rules: &[Rule::V2, Rule::V3],
        plan: |_, _| {},
        play: |stage| Box::pin(unrecorded(stage)),
    },
    Scene {
        name: "will-in-flight",
        text: "a will takes long to reach the log; meanwhile its client comes back to another node",
        rules: &[Rule::V4, Rule::V5],
        plan: |_, _| {},
        play: |stage| Box::pin(in_flight(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::V1, scene: Some("will-of-the-dead"), seed: 1 },
    Caught { rule: Rule::V2, scene: Some("will-unrecorded"), seed: 4 },
    Caught { rule: Rule::V3, scene: Some("will-unrecorded"), seed: 1 },
    Caught { rule: Rule::V4, scene: Some("will-in-flight"), seed: 1 },
    Caught { rule: Rule::V5, scene: Some("will-in-flight"), seed: 1 },
];

/// A client with a will on node 0, and one on node 1 that would get it.
async fn begin(stage: &mut Stage<'_>) {
    stage.subscribe_all(1, 1).await;
    let qos = *stage.dice.pick(&[1, 2]);
    let will = Will { topic: "a/1".to_owned(), qos, retain: false, delay_s: 0 };
    stage.connect(0, Visit { will: Some(will), ..Visit::to(0) }).await;
    stage.pause(1, 6_000).await;
}

/// The client comes back to another node, or is absent until a keeper has seen to it.
async fn come_back_or_stay_away(stage: &mut Stage<'_>) {
    if stage.dice.chance(500) {
        stage.pause(1, 3_000).await;
        stage.connect(0, Visit::to(2)).await;
    }
    stage.pause(20_000, 30_000).await;
}

async fn of_the_dead(stage: &mut Stage<'_>) {
    begin(stage).await;
    stage.crash(0, 40_000);
    come_back_or_stay_away(stage).await;
}

async fn unrecorded(stage: &mut Stage<'_>) {
    begin(stage).await;
    let by_ms = u32::try_from(stage.dice.between(200, 2_000)).unwrap();
    stage.cluster.slow_down(0, "mqtt.sessions", by_ms);
    if stage.dice.chance(500) {
        // A record of the session is under way, and what is written about the will waits behind it.
        stage.subscribe(0, "b/1", 1);
        stage.obeyed(0).await;
        stage.pause(50, 100).await;
    }
    let before = stage.events();
    stage.order(0, Order::Cut);
    let is_will = |event: &Event| matches!(event, Event::Delivered { message, .. } if is_will_of(message.name, 0));
    stage.seen(before, is_will).await;
    stage.pause(1, u64::from(by_ms) / 2).await;
    stage.crash(0, 40_000);
    come_back_or_stay_away(stage).await;
}

fn is_will_of(name: Name, of: usize) -> bool {
    matches!(name, Name::Will { client, .. } if client == of)
}

async fn in_flight(stage: &mut Stage<'_>) {
    begin(stage).await;
    stage.cluster.slow_down(0, MESSAGES, 4_000);
    stage.order(0, Order::Cut);
    stage.pause(200, 1_500).await;
    stage.connect(0, Visit::to(2)).await;
    stage.pause(8_000, 10_000).await;
}
