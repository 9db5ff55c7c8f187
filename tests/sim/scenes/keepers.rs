//! Keepers of absent sessions and clients that come back (K1 to K3).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, SESSIONS, Scene};
use crate::client::orders::{Order, Visit};
use crate::history::Will;

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "back-at-the-end",
        text: "a client comes back just when a keeper ends its session, and the keeper's claim lands behind the client's",
        rules: &[Rule::K1],
        plan: |_, _| {},
        play: |stage| Box::pin(back_at_the_end(stage)),
    },
    Scene {
        name: "two-keepers",
        text: "a node joins and becomes a keeper just when the will of an absent client is due",
        rules: &[Rule::K2],
        plan: |plan, _| plan.faults.append_delay_ms_max = 400,
        play: |stage| Box::pin(two_keepers(stage)),
    },
    Scene {
        name: "gone-for-good",
        text: "a client never comes back: one keeper publishes its will, another one ends its session",
        rules: &[Rule::K3],
        plan: |_, _| {},
        play: |stage| Box::pin(gone_for_good(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::K1, scene: Some("back-at-the-end"), seed: 1 },
    Caught { rule: Rule::K2, scene: Some("two-keepers"), seed: 35 },
    Caught { rule: Rule::K3, scene: Some("gone-for-good"), seed: 0 },
];

fn will(delay_s: u32) -> Will {
    Will { topic: "c".to_owned(), qos: 1, retain: false, delay_s }
}

async fn back_at_the_end(stage: &mut Stage<'_>) {
    stage.connect(0, Visit { expiry_s: 3, ..Visit::to(0) }).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    let quick = usize::try_from(stage.dice.between(0, 2)).unwrap();
    let slow_ms = stage.draw(300, 2_000);
    for node in (0..3).filter(|node| *node != quick) {
        stage.cluster.slow_down(node, SESSIONS, slow_ms);
    }
    stage.order(0, Order::Leave { with_will: false });
    stage.pause(2_800, 3_300 + 2 * u64::from(slow_ms)).await;
    stage.connect(0, Visit::to(quick)).await;
    stage.subscribe(0, "b/1", 1);
    stage.settled(0).await;
    stage.pause(3_000, 6_000).await;
}

async fn two_keepers(stage: &mut Stage<'_>) {
    let (delay_s, joining) = (8, usize::try_from(stage.dice.between(1, 2)).unwrap());
    stage.connect(0, Visit { will: Some(will(delay_s)), ..Visit::to(0) }).await;
    stage.order(0, Order::Cut);
    stage.obeyed(0).await;
    stage.crash(joining, 6_000);
    stage.pause(5_500, 6_000).await;
    // The others do not hear of the new node before they have claimed the session themselves.
    for node in (0..3).filter(|node| *node != joining) {
        let deaf_ms = stage.draw(2_200, 3_800);
        stage.cluster.deafen(node, deaf_ms);
    }
    stage.pause(8_000, 12_000).await;
}

async fn gone_for_good(stage: &mut Stage<'_>) {
    let (delay_s, expiry_s) = (stage.draw(1, 8), stage.draw(15, 30));
    stage.connect(0, Visit { will: Some(will(delay_s)), expiry_s, ..Visit::to(0) }).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    stage.order(0, Order::Retire);
    if stage.dice.chance(500) {
        stage.pause(1, 2_000).await;
        stage.crash(0, 2_000);
    }
    stage.pause(60_000, 80_000).await;
}
