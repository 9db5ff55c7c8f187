//! Retained messages whose writers die or race (R1 to R6).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, Scene};
use crate::client::orders::{Order, Visit};
use crate::plan::Ending;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "retained-in-a-row",
        text: "several messages of a topic are to be retained while the record of the first is on its way",
        rules: &[Rule::R1],
        plan: |_, _| {},
        play: |stage| Box::pin(in_a_row(stage)),
    },
    Scene {
        name: "dead-writer",
        text: "a node dies with the retained record of an acknowledged message on its way",
        rules: &[Rule::R4],
        plan: |_, _| {},
        play: |stage| Box::pin(dead_writer(stage)),
    },
    Scene {
        name: "overtaken-record",
        text: "the retained record of an older message lands behind that of a newer one, before compaction",
        rules: &[Rule::R2, Rule::R3],
        plan: |plan, _| plan.ending = Some(Ending::Compacted),
        play: |stage| Box::pin(overtaken(stage)),
    },
    Scene {
        name: "late-record",
        text: "a retained record lands late, after a client has subscribed at another node",
        rules: &[Rule::R5],
        plan: |_, _| {},
        play: |stage| Box::pin(late(stage)),
    },
    Scene {
        name: "cleared-before",
        text: "a topic is cleared while the retained record of an older message is on its way",
        rules: &[Rule::R6],
        plan: |_, _| {},
        play: |stage| Box::pin(cleared_before(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::R1, scene: Some("retained-in-a-row"), seed: 1 },
    Caught { rule: Rule::R2, scene: Some("overtaken-record"), seed: 1 },
    Caught { rule: Rule::R3, scene: Some("overtaken-record"), seed: 1 },
    Caught { rule: Rule::R4, scene: Some("dead-writer"), seed: 1 },
    Caught { rule: Rule::R5, scene: Some("late-record"), seed: 1 },
    Caught { rule: Rule::R6, scene: Some("cleared-before"), seed: 1 },
];

const RETAINED: &str = "mqtt.retained";

/// Client 0 on node 0, whose records take long, and client 1 on node 1.
async fn begin(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    stage.connect(1, Visit::to(1)).await;
    stage.pause(1, 6_000).await;
    let by_ms = u32::try_from(stage.dice.between(2_000, 5_000)).unwrap();
    stage.cluster.slow_down(0, RETAINED, by_ms);
}

/// A message that is to be retained, until its acknowledgement.
async fn retain(stage: &mut Stage<'_>, client: usize) {
    let qos = *stage.dice.pick(&[1, 2]);
    stage.order(client, Order::Publish { topic: "a/1", qos, retain: true });
    stage.settled(client).await;
}

async fn in_a_row(stage: &mut Stage<'_>) {
    begin(stage).await;
    for _ in 0..stage.dice.between(3, 5) {
        retain(stage, 0).await;
    }
    stage.pause(8_000, 12_000).await;
}

async fn dead_writer(stage: &mut Stage<'_>) {
    begin(stage).await;
    retain(stage, 0).await;
    stage.pause(1, 500).await;
    stage.crash(0, 40_000);
    stage.pause(20_000, 30_000).await;
}

async fn overtaken(stage: &mut Stage<'_>) {
    begin(stage).await;
    retain(stage, 0).await;
    stage.pause(1, 500).await;
    retain(stage, 1).await;
    stage.pause(6_000, 12_000).await;
}

async fn late(stage: &mut Stage<'_>) {
    begin(stage).await;
    retain(stage, 0).await;
    stage.pause(1, 500).await;
    let filter = *stage.dice.pick(&["a/1", "a/+", "#"]);
    stage.subscribe(1, filter, 1);
    stage.settled(1).await;
    stage.pause(6_000, 12_000).await;
}

async fn cleared_before(stage: &mut Stage<'_>) {
    begin(stage).await;
    retain(stage, 0).await;
    stage.pause(1, 500).await;
    stage.order(1, Order::Clear { topic: "a/1", qos: 1 });
    stage.settled(1).await;
    stage.pause(6_000, 12_000).await;
}
