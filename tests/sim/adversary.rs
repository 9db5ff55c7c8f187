//! What happens to the nodes of a run, driven by dice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::cluster::{Cluster, Standing};
use crate::dice::Dice;
use crate::plan::{Plan, Trouble};
use crate::run::MESSAGES;

/// Longest time between two of its deeds.
const PAUSE_MS: u64 = 1_500;
/// How often ended nodes are looked for and the log's time goes on.
const LOOK_MS: u64 = 100;

const STATE_TOPICS: [&str; 3] = ["mqtt.sessions", "mqtt.retained", "mqtt.cluster"];
/// No kafka topic of a run has more.
const PARTITIONS_MAX: u32 = 3;

pub(crate) struct Adversary {
    cluster: Arc<Cluster>,
    dice: Dice,
    trouble: Trouble,
    nodes: usize,
    /// When a node is started or resumed again, by node.
    mend_at_ms: Vec<Option<u64>>,
    /// Nodes that are to be killed once they stand still.
    doomed: Vec<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Nothing,
    Crash,
    CrashMidway,
    Pause,
    LongPause,
    Drain,
    ClockJump,
    Compaction,
    BrokenTail,
}

impl Adversary {
    pub(crate) fn new(cluster: &Arc<Cluster>, plan: &Plan, dice: Dice) -> Self {
        let nodes = plan.nodes;
        Self {
            cluster: Arc::clone(cluster),
            dice,
            trouble: plan.trouble,
            nodes,
            mend_at_ms: vec![None; nodes],
            doomed: vec![false; nodes],
        }
    }

    /// Starts all nodes, does harm for `active_ms`, then mends everything.
    pub(crate) async fn run(&mut self, active_ms: u64) {
        self.start_all();
        let mut next_deed_ms = self.dice.between(1, 3 * PAUSE_MS);
        while self.cluster.now_ms() < active_ms {
            sleep(Duration::from_millis(LOOK_MS)).await;
            self.look();
            if self.cluster.now_ms() >= next_deed_ms {
                next_deed_ms = self.cluster.now_ms() + self.dice.between(1, 2 * PAUSE_MS);
                self.act();
            }
        }
        self.mend_all();
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes {
            self.start(node);
        }
    }

    /// Whatever is down or held goes on.
    pub(crate) fn mend_all(&mut self) {
        self.mend_at_ms.iter_mut().flatten().for_each(|at_ms| *at_ms = 0);
        self.doomed.fill(false);
        for node in 0..self.nodes {
            self.cluster.resume(node);
            self.cluster.put_wall_off(node, 0);
        }
        self.look();
    }

    /// Kills a node now; another incarnation of it starts after so long.
    pub(crate) fn crash_for(&mut self, node: usize, down_ms: u64) {
        self.cluster.crash(node);
        self.mend_at_ms[node] = Some(self.cluster.now_ms() + down_ms);
    }

    /// Nodes that ended are started again, those that rested go on.
    pub(crate) fn look(&mut self) {
        self.cluster.advance_log();
        self.cluster.reap();
        for node in 0..self.nodes {
            if self.doomed[node] && self.cluster.is_still(node) {
                self.doomed[node] = false;
                self.crash(node);
            }
            let is_due = self.mend_at_ms[node].is_some_and(|at_ms| at_ms <= self.cluster.now_ms());
            match self.cluster.standing(node) {
                Standing::Held if is_due => self.cluster.resume(node),
                Standing::Down if is_due || self.mend_at_ms[node].is_none() => self.start(node),
                Standing::Up | Standing::Draining | Standing::Held | Standing::Down => continue,
            }
            self.mend_at_ms[node] = None;
        }
    }

    /// Kills all nodes and starts them again.
    pub(crate) fn replace_all(&mut self) {
        for node in 0..self.nodes {
            self.cluster.crash(node);
            self.start(node);
        }
    }

    /// Leaves in the state topics only the last record of each key.
    pub(crate) fn compact_all(&self) {
        self.cluster.log.with(|log| {
            for topic in STATE_TOPICS {
                (0..PARTITIONS_MAX).for_each(|number| log.compact(topic, number));
            }
        });
    }

    fn start(&mut self, node: usize) {
        let seed = self.dice.roll();
        self.cluster.start(node, seed);
    }

    fn crash(&mut self, node: usize) {
        self.cluster.crash(node);
        self.mend(node, *self.dice.clone().pick(&[1, 500, 4_000, 16_000]));
    }

    fn mend(&mut self, node: usize, within_ms: u64) {
        self.mend_at_ms[node] = Some(self.cluster.now_ms() + self.dice.between(1, within_ms));
    }

    fn act(&mut self) {
        let on = |switch: bool, weight: u64| if switch { weight } else { 0 };
        let deed = self.dice.weighted(&[
            (2, Deed::Nothing),
            (on(self.trouble.crashes, 3), Deed::Crash),
            (on(self.trouble.crashes, 3), Deed::CrashMidway),
            (on(self.trouble.pauses, 3), Deed::Pause),
            (on(self.trouble.long_pauses, 1), Deed::LongPause),
            (on(self.trouble.drains, 1), Deed::Drain),
            (on(self.trouble.clock_jumps, 2), Deed::ClockJump),
            (2, Deed::Compaction),
            (on(self.trouble.gaps, 2), Deed::BrokenTail),
        ]);
        let node = usize::try_from(self.dice.between(0, self.nodes as u64 - 1)).unwrap();
        if self.cluster.standing(node) != Standing::Up || self.doomed[node] {
            return;
        }
        match deed {
            Deed::Nothing => {}
            Deed::Crash => self.crash(node),
            Deed::CrashMidway => {
                self.doomed[node] = true;
                let polls = self.dice.between(1, 60);
                self.cluster.hold_after(node, polls);
            }
            Deed::Pause => {
                self.cluster.hold(node);
                self.mend(node, 4_000);
            }
            Deed::LongPause => {
                self.cluster.hold(node);
                let at_ms = self.cluster.now_ms() + self.dice.between(11_000, 30_000);
                self.mend_at_ms[node] = Some(at_ms);
            }
            Deed::Drain => self.cluster.drain(node),
            Deed::Compaction => {
                let topic = *self.dice.pick(&STATE_TOPICS);
                let number = u32::try_from(self.dice.between(0, 1)).unwrap();
                self.cluster.log.with(|log| log.compact(topic, number));
            }
            Deed::BrokenTail => {
                let [sessions, retained, cluster] = STATE_TOPICS;
                let topic = *self.dice.pick(&[MESSAGES, sessions, retained, cluster]);
                let number = u32::try_from(self.dice.between(0, 2)).unwrap();
                self.cluster.log.with(|log| log.break_tails(topic, number, "on purpose"));
            }
            Deed::ClockJump => {
                let by_ms = i64::try_from(self.dice.between(1, 7_200_000)).unwrap();
                self.cluster.put_wall_off(node, by_ms - 3_600_000);
            }
        }
    }
}
