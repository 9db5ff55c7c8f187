//! Races for a session, and deaths in the middle of them (F1 to F11).

use millrace::ledger::rules::Rule;

use super::stage::Stage;
use super::{Caught, SESSIONS, Scene};
use crate::client::orders::{Order, Visit};
use crate::history::{Event, Will};

pub(super) const SCENES: &[Scene] = &[
    Scene {
        name: "held-owner",
        text: "the owner stands still with appends under way while another node takes over; then it goes on, or dies",
        rules: &[Rule::F1, Rule::F11],
        plan: |plan, dice| plan.faults.append_delay_ms_max = *dice.pick(&[20, 200, 1_000]),
        play: |stage| Box::pin(held_owner(stage)),
    },
    Scene {
        name: "deaf-successor",
        text: "a node takes over that has not read yet what the owner told its client",
        rules: &[Rule::F2],
        plan: |_, _| {},
        play: |stage| Box::pin(deaf_successor(stage)),
    },
    Scene {
        name: "late-set",
        text: "what the owner wrote at the end of its connection lands behind the set of its successor",
        rules: &[Rule::F3],
        plan: |_, _| {},
        play: |stage| Box::pin(late_set(stage)),
    },
    Scene {
        name: "dying-successor",
        text: "a node dies while it takes over, and a third one goes on from what there is",
        rules: &[Rule::F4, Rule::F7],
        plan: |_, _| {},
        play: |stage| Box::pin(dying_successor(stage)),
    },
    Scene {
        name: "forgotten-connection",
        text: "a client leaves a connection as it is and goes to another node; the first one may be slow to read that",
        rules: &[Rule::F5, Rule::F6],
        plan: |_, _| {},
        play: |stage| Box::pin(forgotten_connection(stage)),
    },
    Scene {
        name: "claim-only",
        text: "a node claims a session that there never was, and dies before the client is told anything",
        rules: &[Rule::F8],
        plan: |_, _| {},
        play: |stage| Box::pin(claim_only(stage)),
    },
    Scene {
        name: "late-state-of-an-ended-session",
        text: "a session ends while a record of an earlier owner is still under way; then everything is compacted",
        rules: &[Rule::F10],
        plan: |_, _| {},
        play: |stage| Box::pin(late_state_of_an_ended_session(stage)),
    },
];

pub(super) const CAUGHT: &[Caught] = &[
    Caught { rule: Rule::F1, scene: None, seed: 1 },
    Caught { rule: Rule::F2, scene: Some("deaf-successor"), seed: 1 },
    Caught { rule: Rule::F3, scene: Some("late-set"), seed: 2 },
    Caught { rule: Rule::F4, scene: Some("dying-successor"), seed: 1 },
    Caught { rule: Rule::F5, scene: Some("forgotten-connection"), seed: 1 },
    Caught { rule: Rule::F6, scene: Some("forgotten-connection"), seed: 1 },
    Caught { rule: Rule::F7, scene: Some("dying-successor"), seed: 2 },
    Caught { rule: Rule::F8, scene: Some("claim-only"), seed: 1 },
    Caught { rule: Rule::F10, scene: Some("late-state-of-an-ended-session"), seed: 2 },
    Caught { rule: Rule::F11, scene: Some("held-owner"), seed: 2 },
];

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

async fn deaf_successor(stage: &mut Stage<'_>) {
    stage.connect(1, Visit::to(2)).await;
    stage.connect(0, Visit::to(0)).await;
    let deaf_ms = stage.draw(1_000, 3_500);
    stage.cluster.deafen(1, deaf_ms);
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    stage.pause(1, 200).await;
    stage.connect(0, Visit::to(1)).await;
    stage.publish(1, "a/1", 1);
    stage.settled(1).await;
    stage.pause(1, 5_000).await;
}

async fn late_set(stage: &mut Stage<'_>) {
    stage.connect(1, Visit::to(2)).await;
    stage.connect(0, Visit::to(0)).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    let late_ms = stage.draw(300, 2_000);
    stage.cluster.slow_down(0, SESSIONS, late_ms);
    stage.order(0, Order::Cut);
    stage.pause(5, 100).await;
    stage.connect(0, Visit::to(1)).await;
    stage.subscribe(0, "b/1", 1);
    stage.settled(0).await;
    // The second owner is to write nothing more before the third one reads.
    stage.order(0, Order::LeaveOpen);
    stage.pause(u64::from(late_ms), u64::from(late_ms) + 300).await;
    stage.connect(0, Visit::to(2)).await;
    stage.publish(1, "b/1", 1);
    stage.settled(1).await;
    stage.pause(1, 2_000).await;
}

async fn dying_successor(stage: &mut Stage<'_>) {
    stage.connect(1, Visit::to(2)).await;
    let will = Will { topic: "c".to_owned(), qos: 1, retain: false, delay_s: 0 };
    let will = stage.dice.chance(700).then_some(will);
    stage.connect(0, Visit { will, ..Visit::to(0) }).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    let slow_ms = stage.draw(50, 400);
    if stage.dice.chance(500) {
        stage.cluster.slow_down(1, SESSIONS, slow_ms);
    } else {
        stage.cluster.deafen(1, 10 * slow_ms);
    }
    stage.order(0, Order::LeaveOpen);
    stage.obeyed(0).await;
    let before = stage.events();
    stage.order(0, Order::Connect(Visit::to(1)));
    stage.seen(before, |event| matches!(event, Event::Connecting { .. })).await;
    stage.pause(u64::from(slow_ms), 4 * u64::from(slow_ms) + 50).await;
    stage.crash(1, 3_000);
    stage.connect(0, Visit::to(2)).await;
    stage.publish(1, "a/1", 1);
    stage.settled(1).await;
    stage.pause(1, 2_000).await;
}

async fn forgotten_connection(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    stage.order(0, Order::LeaveOpen);
    stage.obeyed(0).await;
    if stage.dice.chance(600) {
        let deaf_ms = stage.draw(2_000, 4_500);
        stage.cluster.deafen(0, deaf_ms);
    }
    stage.connect(0, Visit::to(1)).await;
    stage.pause(4_000, 8_000).await;
}

async fn claim_only(stage: &mut Stage<'_>) {
    stage.cluster.deafen(0, 3_000);
    stage.order(0, Order::Connect(Visit { expiry_s: 0, ..Visit::to(0) }));
    stage.pause(30, 300).await;
    stage.crash(0, 3_000);
    stage.order(0, Order::Cut);
    stage.pause(20, 300).await;
    stage.connect(0, Visit::to(1)).await;
    stage.pause(1, 2_000).await;
}

async fn late_state_of_an_ended_session(stage: &mut Stage<'_>) {
    stage.connect(0, Visit::to(0)).await;
    stage.subscribe(0, "a/+", 1);
    stage.settled(0).await;
    let late_ms = stage.draw(1_000, 4_000);
    stage.cluster.slow_down(0, SESSIONS, late_ms);
    stage.order(0, Order::Cut);
    stage.pause(5, 100).await;
    stage.connect(0, Visit { clean_start: true, expiry_s: 0, ..Visit::to(1) }).await;
    stage.order(0, Order::Leave { with_will: false });
    stage.pause(u64::from(late_ms), u64::from(late_ms) + 1_000).await;
    if stage.dice.chance(500) {
        stage.compact();
    }
    stage.connect(0, Visit::to(2)).await;
    stage.pause(1, 2_000).await;
}
