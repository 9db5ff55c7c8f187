//! Races for a session, and deaths in the middle of them (F1 to F11).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, Scene};
use crate::client::orders::{Order, Visit};

pub(super) const SCENES: &[Scene] = &[Scene {
    name: "held-owner",
    text: "the owner stands still with appends under way while another node takes over; then it goes on, or dies",
    rules: &[Rule::F1, Rule::F3, Rule::F5, Rule::F6, Rule::F11],
    plan: |plan, dice| plan.faults.append_delay_ms_max = *dice.pick(&[20, 200, 1_000]),
    play: |stage| Box::pin(held_owner(stage)),
}];

pub(super) const CAUGHT: &[Caught] = &[];

async fn held_owner(stage: &mut Stage<'_>) {
    stage.subscribe_all(1, 2).await;
    stage.connect(0, Visit::to(0)).await;
    for _ in 0..stage.dice.between(1, 4) {
        stage.subscribe(0, "a/+", 2);
        for _ in 0..stage.dice.between(1, 4) {
            let qos = *stage.dice.pick(&[1, 2]);
            stage.publish(0, "b/1", qos);
        }
        stage.pause(1, 60).await;
    }
    stage.hold(0);
    stage.order(0, Order::Cut);
    stage.connect(0, Visit::to(1)).await;
    stage.publish(0, "b/1", 1);
    stage.pause(1, 300).await;
    if stage.dice.chance(500) {
        stage.resume(0);
    } else {
        stage.crash(0, 5_000);
    }
    stage.pause(1, 2_000).await;
    stage.connect(0, Visit::to(2)).await;
    stage.publish(0, "b/1", 1);
    stage.pause(1, 2_000).await;
}
