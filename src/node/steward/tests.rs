//! The core's standing among the nodes: when it may act, when it suspends, when it is over.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::commands::Command;
use super::core::{Core, Identity, Limits, Standing};
use super::effect::{Effect, Input, Log};
use super::routes::Routes;
use crate::journal::memory::{FaultPlan, Limits as LogLimits, MemoryJournal, SharedLog};
use crate::journal::{AckGroup, AckSink, Offset, Outcome, Refusal};
use crate::ledger::ids::Incarnation;
use crate::ledger::record;
use crate::ledger::record::cluster::{self, ClusterKey};
use crate::ledger::rules::Rules;
use crate::ledger::state::SessionState;
use crate::mqtt::ClientId;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::{Mailbox, MailboxLimits};
use crate::route::mapping::Mapping;
use crate::session::{PartCause, Parting, Wish};

const ME: Incarnation = Incarnation([1; 16]);
const OTHER: Incarnation = Incarnation([2; 16]);

struct NoAcks;

impl AckSink for NoAcks {
    fn on_acks(&self, _group: &AckGroup<'_>) {}
    fn flush(&self) {}
}

/// A core and the log of the cluster, where every append lands at once unless Kafka is away.
struct Stage {
    core: Core,
    now_ms: i64,
    next_offset: i64,
    kafka_is_away: bool,
    heartbeats: usize,
    /// The last append while Kafka was away.
    lost: Option<u64>,
    exited: bool,
}

impl Stage {
    /// A node that acts.
    fn acting() -> Self {
        let log = SharedLog::new(FaultPlan::default(), LogLimits::default());
        let journal = Arc::new(MemoryJournal::open(&log, vec![], Arc::new(NoAcks)));
        let mapping = Arc::new(Mapping::new(&[], "t").unwrap());
        let routes = Routes { journal, mapping, token_tick: Arc::new(AtomicU32::new(0)) };
        let identity = Identity { incarnation: ME, node_id: "a".into(), producer_id: 7, started_ms: 0 };
        let core = Core::new(identity, Limits::default(), Rules::ALL, routes, 1);
        let mut stage =
            Self { core, now_ms: 0, next_offset: 0, kafka_is_away: false, heartbeats: 0, lost: None, exited: false };
        stage.replay();
        stage.pass(3_000);
        assert_eq!(stage.core.standing, Standing::Acting);
        stage
    }

    /// What there is of `mqtt.sessions` is read.
    fn replay(&mut self) {
        self.core.begin_generation(1, 0, 1);
        self.core.on_replayed();
    }

    /// The node runs for so long.
    fn pass(&mut self, ms: i64) {
        for _ in 0..ms / 250 {
            self.stand_still(250);
        }
    }

    /// The node's next tick comes only after so long.
    fn stand_still(&mut self, ms: i64) {
        self.now_ms += ms;
        self.core.set_now(self.now_ms);
        self.core.on_tick();
        self.perform();
    }

    fn perform(&mut self) {
        for effect in self.core.take_effects() {
            match effect {
                Effect::Append { sequence, log: Log::Cluster, key, value, .. } if !self.kafka_is_away => {
                    self.heartbeats += 1;
                    let offset = self.write(&key, value.as_deref());
                    if sequence != 0 {
                        self.core.handle(Input::Outcome { sequence, outcome: Outcome::Written(Offset(offset)) });
                    }
                }
                Effect::Append { sequence, log: Log::Cluster, .. } if self.kafka_is_away => self.lost = Some(sequence),
                Effect::Exit { .. } => self.exited = true,
                Effect::Append { .. }
                | Effect::AppendWill { .. }
                | Effect::Tell { .. }
                | Effect::ProbeMessages { .. }
                | Effect::AskEnds { .. }
                | Effect::Scan { .. }
                | Effect::Fence { .. }
                | Effect::FenceAnew { .. }
                | Effect::Drained(_)
                | Effect::Suspend(_) => {}
            }
        }
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> i64 {
        let offset = self.next_offset;
        self.next_offset += 1;
        self.core.handle(Input::Record { log: Log::Cluster, partition: 0, offset, append_ms: self.now_ms, key, value });
        offset
    }
}

/// The claims that the node appends now.
fn claims(core: &mut Core) -> Vec<u64> {
    let is_claim = |key: &[u8]| matches!(record::parse(key), Ok(record::Key::Of { slot: record::Slot::Claim, .. }));
    let sequence = |effect| {
        let Effect::Append { sequence, log: Log::Sessions, key, .. } = effect else { return None };
        is_claim(&key).then_some(sequence)
    };
    core.take_effects().into_iter().filter_map(sequence).collect()
}

/// It would take the session from the client's next connection.
#[tokio::test(start_paused = true)]
async fn a_claim_that_was_not_written_is_repeated_only_while_its_client_is_there() {
    for is_gone in [false, true] {
        let Stage { mut core, .. } = Stage::acting();
        let connection = ConnectionId::from_u64(1);
        let wish = Wish {
            client_id: ClientId::parse("c", 128).unwrap(),
            clean_start: true,
            expiry_s: 0,
            will: None,
            identity: "".into(),
            assigned: false,
        };
        let mailbox = Arc::new(Mailbox::new(MailboxLimits::default()));
        core.command(Command::Claim { connection, mailbox, wish: Box::new(wish) });
        let written = claims(&mut core);
        assert_eq!(written.len(), 1);
        if is_gone {
            let parting = Parting {
                cause: PartCause::Broken,
                state: SessionState::default(),
                unacked: vec![],
                outstanding: vec![],
                unknown: 0,
            };
            core.command(Command::Parted { connection, parting: Some(Box::new(parting)) });
        }
        core.handle(Input::Outcome { sequence: written[0], outcome: Outcome::Refused(Refusal::Deadline) });
        assert_eq!(claims(&mut core).len(), usize::from(!is_gone));
        assert_eq!(core.owned.len(), usize::from(!is_gone));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_heartbeats_are_not_heard_suspends_and_goes_on_when_one_is() {
    let mut stage = Stage::acting();
    stage.kafka_is_away = true;
    stage.pass(10_000);
    assert_eq!(stage.core.standing, Standing::Suspended);
    stage.kafka_is_away = false;
    // The heartbeat that was not heard has no outcome yet: it is the journal that knows that it was not written.
    let sequence = stage.lost.take().unwrap();
    stage.core.handle(Input::Outcome { sequence, outcome: Outcome::Unknown });
    stage.pass(3_000);
    assert_eq!(stage.core.standing, Standing::Acting);
    assert!(!stage.exited);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_evicted_while_it_suspended_ends() {
    let mut stage = Stage::acting();
    stage.kafka_is_away = true;
    stage.pass(10_000);
    stage.write(&ClusterKey::Eviction { node: ME, by: OTHER }.encode(), Some(&cluster::by(OTHER)));
    stage.perform();
    assert!(stage.exited);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stood_still_for_a_minute_ends_although_nobody_evicted_it() {
    let mut stage = Stage::acting();
    stage.stand_still(60_000);
    stage.pass(3_000);
    assert_eq!((stage.core.standing, stage.exited), (Standing::Acting, false));

    stage.stand_still(60_250);
    assert_eq!((stage.core.standing, stage.exited), (Standing::Over, true));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_to_read_its_sessions_again_is_not_taken_for_dead_meanwhile() {
    let mut stage = Stage::acting();
    stage.core.on_lost();
    let before = stage.heartbeats;
    stage.pass(20_000);
    assert!(stage.heartbeats >= before + 9, "{before} and then {}", stage.heartbeats);
    assert_eq!(stage.core.standing, Standing::Replaying);
    stage.pass(60_000);
    let enough = stage.heartbeats;
    stage.pass(10_000);
    assert_eq!(stage.heartbeats, enough, "it takes too long");
    stage.replay();
    stage.pass(3_000);
    assert_eq!(stage.core.standing, Standing::Acting);
}
