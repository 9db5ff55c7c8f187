//! What may go wrong, and how often; decided from a seed.

/// How often things go wrong in a memory log: permille per group of appends, or per what else is named. All 0 by
/// default: nothing goes wrong and nothing takes time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// From it every decision is drawn.
    pub seed: u64,
    /// A group takes up to this long to reach the log.
    pub append_delay_ms_max: u32,
    /// Its outcome takes up to this long to come back.
    pub ack_delay_ms_max: u32,
    /// Refused for one of `Deadline`, `NotAuthorized`, `Invalid`; it is not in the log.
    pub refused_permille: u16,
    /// `Unknown`, and it is in the log.
    pub unknown_landed_permille: u16,
    /// `Unknown`, and it never will be in the log.
    pub unknown_lost_permille: u16,
    /// `Unknown`; it lands later, unless its producer is fenced by then, or a later group of the same incarnation came
    /// first (then a coin decides whether it landed just before that one or never).
    pub unknown_late_permille: u16,
    /// A late group lands up to this much later. Also what a crash leaves under way may land within this time.
    pub late_ms_max: u32,
    /// An incarnation that is cut off tells after so long that an append is `Refused(Deadline)`, if it never set out, else
    /// `Unknown`; 0: never.
    pub append_deadline_ms: u32,
    /// In the log twice, `Written` once. An idempotent producer on Kafka does not do that; a proxy between them may.
    pub duplicated_permille: u16,
    /// Before a group lands, an aborted transaction of a foreign producer does.
    pub foreign_aborted_permille: u16,
    /// Before a group lands, a few offsets are used up by nothing that can be read.
    pub hole_permille: u16,
    /// After a group landed in a compacted kafka topic, its partition is compacted.
    pub compaction_permille: u16,
    /// A question (ends, read, describe, create) is not answered: `Unavailable`. So is a fence of one partition, and then a
    /// coin decides whether it was done.
    pub unanswered_permille: u16,
    /// The cluster allows no markers: nodes fence with records.
    pub fences_are_records: bool,
    /// After an event a tail hears nothing more for up to `tail_delay_ms_max`.
    pub tail_delay_permille: u16,
    /// The longest silence of a tail.
    pub tail_delay_ms_max: u32,
    /// Instead of a batch, a tail gets `Gap` and has lost its place.
    pub tail_gap_permille: u16,
}

impl FaultPlan {
    /// Everything that a healthy client of a troubled Kafka may see, a few percent each; no duplicates and no gaps, which
    /// Kafka and its tail do not make.
    pub fn troubled(seed: u64) -> Self {
        Self {
            seed,
            append_delay_ms_max: 40,
            ack_delay_ms_max: 20,
            refused_permille: 10,
            unknown_landed_permille: 20,
            unknown_lost_permille: 20,
            unknown_late_permille: 20,
            late_ms_max: 30_000,
            append_deadline_ms: 20_000,
            duplicated_permille: 0,
            foreign_aborted_permille: 10,
            hole_permille: 20,
            compaction_permille: 20,
            unanswered_permille: 20,
            fences_are_records: false,
            tail_delay_permille: 50,
            tail_delay_ms_max: 500,
            tail_gap_permille: 0,
        }
    }
}

/// The seed at work: `SplitMix64`, whose sequence will not change under us.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in `permille` of a thousand cases; draws nothing for 0.
    pub(super) fn chance(&mut self, permille: u16) -> bool {
        permille > 0 && self.roll() % 1000 < u64::from(permille)
    }

    /// 0 to `max`; draws nothing for 0.
    pub(super) fn up_to(&mut self, max: u32) -> u32 {
        if max == 0 { 0 } else { u32::try_from(self.roll() % (u64::from(max) + 1)).unwrap_or(max) }
    }

    pub(super) fn coin(&mut self) -> bool {
        self.roll() & 1 == 0
    }
}
