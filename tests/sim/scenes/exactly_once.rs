//! QoS 2 publishes whose fate a death leaves open (Q1 to Q5, F9).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, MESSAGES, SESSIONS, Scene};
use crate::client::orders::{Order, Visit};
use crate::history::Answer;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "unanswered-publish",
        text: "a node dies with publishes of QoS 2 under way; some are in the log, some land later, some never",
        rules: &[Rule::Q1, Rule::Q2, Rule::F9],
        plan: |plan, _| plan.faults.late_ms_max = 25_000,
        play: |stage| Box::pin(unanswered_publish(stage)),
    },
    Scene {
        name: "release-not-recorded",
        text: "a node dies just after the client released an id, and the client uses the id again at another node",
        rules: &[Rule::Q3],
        plan: |_, _| {},
        play: |stage| Box::pin(release_not_recorded(stage)),
    },
    Scene {
        name: "released-elsewhere",
        text: "the client releases at a second node what a dead one took, uses the id again, and must go to a third node",
        rules: &[Rule::Q4],
        plan: |_, _| {},
        play: |stage| Box::pin(released_elsewhere(stage)),
    },
    Scene {
        name: "old-token",
        text: "a node dies long after it took a publish whose PUBREC the client never read",
        rules: &[Rule::Q5],
        plan: |_, _| {},
        play: |stage| Box::pin(old_token(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::F9, scene: Some("unanswered-publish"), seed: 6 },
    Caught { rule: Rule::Q1, scene: Some("unanswered-publish"), seed: 2 },
    Caught { rule: Rule::Q2, scene: Some("unanswered-publish"), seed: 4 },
    Caught { rule: Rule::Q3, scene: Some("release-not-recorded"), seed: 4 },
    Caught { rule: Rule::Q4, scene: Some("released-elsewhere"), seed: 1 },
    Caught { rule: Rule::Q5, scene: Some("old-token"), seed: 1 },
];

async fn unanswered_publish(stage: &mut Stage<'_>) {
    stage.subscribe_all(1, 2).await;
    stage.connect(0, Visit::to(0)).await;
    let slow_ms = *stage.dice.pick(&[0, 50, 1_000]);
    stage.cluster.slow_down(0, MESSAGES, slow_ms);
    for _ in 0..stage.dice.between(1, 4) {
        stage.publish(0, "a/1", 2);
    }
    stage.pause(1, 100).await;
    stage.crash(0, 1_000);
    stage.connect(0, Visit::to(1)).await;
    stage.settled(0).await;
    stage.pause(1, 15_000).await;
}

async fn release_not_recorded(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    stage.order(0, Order::Pay(false));
    let before = stage.events();
    stage.publish(0, "a/1", 2);
    stage.answered(before, 0, Answer::Received).await;
    // Long enough for the node to record that it holds the id.
    stage.pause(5_500, 12_000).await;
    stage.cluster.slow_down(0, SESSIONS, 500);
    stage.order(0, Order::Pay(true));
    stage.answered(before, 0, Answer::Completed).await;
    stage.crash(0, 1_000);
    stage.connect(0, Visit::to(1)).await;
    stage.publish(0, "a/2", 2);
    stage.settled(0).await;
}

async fn released_elsewhere(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    stage.order(0, Order::Pay(false));
    let before = stage.events();
    stage.publish(0, "a/1", 2);
    stage.answered(before, 0, Answer::Received).await;
    stage.pause(1, 200).await;
    stage.crash(0, 2_000);
    stage.connect(0, Visit::to(1)).await;
    stage.order(0, Order::Pay(true));
    stage.answered(before, 0, Answer::Completed).await;
    stage.publish(0, "a/1", 2);
    stage.obeyed(0).await;
    stage.pause(1, 200).await;
    stage.crash(1, 2_000);
    stage.connect(0, Visit::to(2)).await;
    stage.settled(0).await;
}

async fn old_token(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    let sleep_ms = stage.dice.between(7_000, 16_000);
    stage.publish(0, "a/1", 2);
    stage.order(0, Order::Sleep { ms: sleep_ms });
    stage.obeyed(0).await;
    stage.pause(sleep_ms - 1_000, sleep_ms - 1).await;
    stage.crash(0, 2_000);
    stage.connect(0, Visit::to(1)).await;
    stage.settled(0).await;
}
