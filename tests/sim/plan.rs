//! What a run consists of, drawn from its seed.

use millrace::journal::memory::FaultPlan;
use millrace::ledger::rules::Rules;

use crate::dice::Dice;
use crate::scenes::Scene;

/// What the clients of a run may use. A feature that is off is neither used nor checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of switches")]
pub(crate) struct Features {
    /// Sessions that outlive their connection.
    pub(crate) persistent: bool,
    pub(crate) qos2: bool,
    pub(crate) retained: bool,
    pub(crate) wills: bool,
    /// A client id on one node takes it from another.
    pub(crate) takeover: bool,
}

impl Features {
    pub(crate) const ALL: Self = Self { persistent: true, qos2: true, retained: true, wills: true, takeover: true };
    /// What the nodes can do.
    pub(crate) const NOW: Self = Self::ALL;

    /// Those whose names are in `text`, separated by commas; `all` is all of them.
    pub(crate) fn parse(text: &str) -> Self {
        let has = |name: &str| text.split(',').any(|part| part == name || part == "all");
        Self {
            persistent: has("persistent"),
            qos2: has("qos2"),
            retained: has("retained"),
            wills: has("wills"),
            takeover: has("takeover"),
        }
    }
}

/// Which kinds of trouble a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of switches")]
pub(crate) struct Trouble {
    pub(crate) crashes: bool,
    pub(crate) pauses: bool,
    /// Longer than it takes to be thought dead.
    pub(crate) long_pauses: bool,
    pub(crate) drains: bool,
    pub(crate) cuts: bool,
    pub(crate) clock_jumps: bool,
    /// Tails lose their place.
    pub(crate) gaps: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) features: Features,
    pub(crate) rules: Rules,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    /// So long the clients and the adversary are busy.
    pub(crate) active_ms: u64,
    pub(crate) trouble: Trouble,
    pub(crate) faults: FaultPlan,
    /// No append of a healthy incarnation is lost or refused: the log keeps each publisher's order.
    pub(crate) log_keeps_order: bool,
    /// The log may not tell what became of an append.
    pub(crate) appends_may_be_unknown: bool,
    pub(crate) queue_packets_max: u64,
    /// Nothing may happen for so long before the run is over.
    pub(crate) quiet_ms: u64,
    /// Instead of the adversary and of what clients think of.
    pub(crate) scene: Option<&'static Scene>,
    /// What is done once everything is at rest; drawn otherwise.
    pub(crate) ending: Option<Ending>,
}

/// How a run goes on after it came to rest: everything must be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All nodes are replaced after compaction left the last record of each key and no tombstone.
    Compacted,
    /// All nodes are replaced.
    Replaced,
    /// All clients come back.
    Returned,
}

impl Plan {
    /// What a scene makes of a seed: healthy nodes and a log that is a little slow, but for what the scene does.
    pub(crate) fn of_scene(seed: u64, scene: &'static Scene) -> Self {
        let drawn = Self::draw(seed, Features::ALL);
        let mut dice = Dice::new(seed ^ 0x5ce_4e5);
        let faults =
            FaultPlan { seed: dice.roll(), append_delay_ms_max: 20, ack_delay_ms_max: 10, ..FaultPlan::default() };
        let trouble = Trouble::default();
        let mut plan = Self {
            nodes: 3,
            clients: 2,
            trouble,
            faults,
            log_keeps_order: true,
            appends_may_be_unknown: false,
            queue_packets_max: 1000,
            scene: Some(scene),
            ..drawn
        };
        (scene.plan)(&mut plan, &mut dice);
        plan
    }

    pub(crate) fn draw(seed: u64, features: Features) -> Self {
        let mut dice = Dice::new(seed);
        let faults = faults(&mut dice);
        let calm = dice.chance(100);
        let mut switch = |permille| !calm && dice.chance(permille);
        let trouble = Trouble {
            crashes: switch(700),
            pauses: switch(600),
            long_pauses: switch(300),
            drains: switch(250),
            cuts: switch(800),
            clock_jumps: switch(400),
            gaps: switch(200),
        };
        let appends_may_be_unknown = faults.unknown_landed_permille > 0;
        let log_keeps_order = faults.refused_permille == 0 && faults.unknown_lost_permille == 0;
        Self {
            seed,
            features,
            rules: Rules::ALL,
            nodes: dice.weighted(&[(1, 1), (3, 2), (4, 3)]),
            clients: usize::try_from(dice.between(2, 6)).unwrap(),
            active_ms: dice.between(5_000, 25_000),
            trouble,
            faults,
            log_keeps_order,
            appends_may_be_unknown,
            queue_packets_max: *dice.pick(&[4, 20, 1000]),
            quiet_ms: if features.wills || features.persistent || features.retained { 40_000 } else { 5_000 },
            scene: None,
            ending: None,
        }
    }
}

fn faults(dice: &mut Dice) -> FaultPlan {
    let seed = dice.roll();
    let slow = FaultPlan { seed, append_delay_ms_max: 40, ack_delay_ms_max: 20, ..FaultPlan::default() };
    match dice.between(0, 3) {
        0 => FaultPlan { seed, ..FaultPlan::default() },
        1 => slow,
        2 => FaultPlan {
            unknown_landed_permille: 20,
            unanswered_permille: 20,
            tail_delay_permille: 100,
            tail_delay_ms_max: 500,
            compaction_permille: 50,
            hole_permille: 20,
            foreign_aborted_permille: 20,
            ..slow
        },
        _ => FaultPlan::troubled(seed),
    }
}
