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
        plan: |plan, _| plan.faults.append_delay_ms_max = 800,
        play: |stage| Box::pin(two_keepers(stage)),
    },
    Scene {
        name: "two-wills-left",
        text: "two nodes die and leave a will that is due and one that is due later, and the client stays away",
        rules: &[Rule::K3],
        plan: |_, _| {},
        play: |stage| Box::pin(two_wills_left(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[];

fn will(delay_s: u32) -> Option<Will> {
    Some(Will { topic: "c".to_owned(), qos: 1, retain: false, delay_s })
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
    let delay_s = 8;
    stage.connect(0, Visit { will: will(delay_s), ..Visit::to(0) }).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    let joins_ms = stage.dice.between(6_500, 8_500);
    stage.order(0, Order::Cut);
    stage.obeyed(0).await;
    let joining = usize::try_from(stage.dice.between(1, 2)).unwrap();
    stage.crash(joining, joins_ms);
    stage.pause(12_000, 20_000).await;
}

async fn two_wills_left(stage: &mut Stage<'_>) {
    stage.connect(0, Visit { will: will(0), ..Visit::to(0) }).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    stage.crash(0, 3_000);
    stage.pause(1, 500).await;
    let delay_s = stage.draw(30, 60);
    stage.connect(0, Visit { will: will(delay_s), ..Visit::to(1) }).await;
    stage.pause(1, 3_000).await;
    stage.crash(1, 3_000);
    stage.pause(200_000, 220_000).await;
}
