//! F9, the fence at the partition leaders: after it none of a dead node's queued or retried writes can land.
//!
//! ```text
//! State      two partitions. In 0 the zombie has written before, in 1 never. Per partition: the leader's entry for the
//!            zombie's producer id (epoch, last sequence, or None), the log, the zombie's one token write (a QoS 2 publish
//!            or a will) and its client library, the keeper's progress. Requests sit in the network and in broker queues
//!            arbitrarily long.
//! Leader     as Kafka does it: lower epoch -> refused; same epoch and next sequence -> appended; same epoch and old
//!            sequence -> `duplicate`, reported as SUCCESS without an append; higher epoch with sequence 0 -> appended,
//!            is the new epoch; no entry -> accepted.
//! Library    may send a write again; after a refusal it bumps the epoch by itself (once) and sends again with sequence 0.
//! Keeper     fences, then reads the log to its high watermark, then writes the tokens it did not find (on the client's
//!            retry).
//! Rules      F9a the fence is a record with the dead node's producer id, the MAXIMUM epoch and sequence 0, acked by the
//!                leader of EVERY partition of every topic the node may write to, whether it ever wrote there or not
//!            F9b look-ups begin after all those acks and run to the high watermark (READ_UNCOMMITTED)
//!            F9c `invalid producer epoch` is the end of a node: its process exits, it never asks for a new producer id,
//!                and no node ever bumps itself as far as the maximum epoch
//!            F9d a process that stood still for longer than a fraction of producer.id.expiration.ms exits (leaders
//!                forget fences)
//! Property   acked    a write that was reported as success is in the log
//!            once     no token is twice in the log
//!            done     at rest every token is in the log exactly once
//! Must pass  good
//! Must fail  deadline (no fence, only waiting until the library gave up), fence_next_epoch, lookup_before_fence,
//!            only_where_it_wrote, new_producer_id, fence_forgotten
//! ```

use crate::search::{Model, Steps, fails, passes};
use crate::small::List;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Good,
    Deadline,
    FenceNextEpoch,
    LookupBeforeFence,
    OnlyWhereItWrote,
    NewProducerId,
    FenceForgotten,
}
use Variant::{Deadline, FenceForgotten, FenceNextEpoch, Good, LookupBeforeFence, NewProducerId, OnlyWhereItWrote};

/// Stands for 32767.
const EPOCH_MAX: u8 = 9;

struct F9 {
    variant: Variant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Request {
    /// None: under a new producer id.
    epoch: Option<u8>,
    sequence: u8,
}

/// The leader's entry for the producer id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Entry {
    epoch: u8,
    sequence: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Writer {
    #[default]
    Zombie,
    Keeper,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Library {
    #[default]
    Idle,
    Sent,
    GaveUp,
    Acked,
    Refused,
    Dead,
}

#[derive(Clone, Copy, Default, Hash)]
struct Partition {
    entry: Option<Entry>,
    log: List<Writer, 4>,
    network: List<Request, 4>,
    library: Library,
    request: Request,
    fenced: bool,
    /// What the keeper's look-up found, once it has looked.
    found: Option<bool>,
}

/// A leader's answer to an idempotent produce request.
struct Produced {
    success: bool,
    appended: bool,
    entry: Option<Entry>,
}

fn produce(entry: Option<Entry>, epoch: u8, sequence: u8) -> Produced {
    let new = Some(Entry { epoch, sequence });
    match entry {
        Some(old) if epoch == old.epoch && sequence == old.sequence + 1 => {
            Produced { success: true, appended: true, entry: new }
        }
        Some(old) if epoch == old.epoch && sequence <= old.sequence => {
            Produced { success: true, appended: false, entry }
        }
        Some(old) if epoch <= old.epoch || sequence != 0 => Produced { success: false, appended: false, entry },
        Some(_) | None => Produced { success: true, appended: true, entry: new },
    }
}

type State = List<Partition, 2>;

impl Model for F9 {
    type State = State;

    fn initial(&self) -> State {
        let request = |sequence| Request { epoch: Some(0), sequence };
        let entry = Some(Entry { epoch: 0, sequence: 0 });
        let written = Partition { entry, request: request(1), ..Partition::default() };
        List::of(&[written, Partition { request: request(0), ..Partition::default() }])
    }

    fn steps(&self, state: &State, out: &mut Steps<State>) {
        let all_fenced = state.numbered().all(|(index, part)| part.fenced || self.may_skip(index));
        let at_end = |part: &Partition| matches!(part.library, Library::GaveUp | Library::Acked | Library::Dead);
        let ready = all_fenced && (self.variant != Deadline || state.iter().all(at_end));
        for (index, part) in state.numbered() {
            let mut one = One { state, index, part, out };
            self.zombie(&mut one);
            leader(&mut one);
            self.keeper(&mut one, ready);
        }
    }

    fn broken(&self, state: &State) -> Option<String> {
        for part in state.iter() {
            if part.log.len() > 1 {
                return Some(format!("TWICE in the log: {:?}", part.log));
            }
            if part.library == Library::Acked && !part.log.contains(&Writer::Zombie) {
                return Some("ACK WITHOUT A RECORD".to_owned());
            }
        }
        None
    }

    fn at_rest(&self, state: &State) -> Option<String> {
        let good = state.iter().all(|part| part.log.len() == 1);
        (!good).then(|| "LOST or the keeper is stuck".to_owned())
    }
}

/// One partition of one state.
struct One<'a> {
    state: &'a State,
    index: u8,
    part: Partition,
    out: &'a mut Steps<State>,
}

impl One<'_> {
    fn will(&mut self, part: Partition, label: &str) {
        let index = self.index;
        self.out.will(self.state.put(index, part), || format!("{label} (partition {index})"));
    }

    fn may(&mut self, part: Partition, label: &str) {
        let index = self.index;
        self.out.may(self.state.put(index, part), || format!("{label} (partition {index})"));
    }
}

impl F9 {
    fn may_skip(&self, partition: u8) -> bool {
        self.variant == Deadline || (self.variant == OnlyWhereItWrote && partition == 1)
    }

    fn zombie(&self, one: &mut One<'_>) {
        let part = one.part;
        let sends =
            |request| Partition { network: part.network.with(request), library: Library::Sent, request, ..part };
        match part.library {
            Library::Idle => {
                one.may(sends(part.request), "zombie sends");
                one.will(Partition { library: Library::GaveUp, ..part }, "zombie stays silent");
            }
            Library::Sent => {
                if part.network.len() < 2 && part.request.epoch.is_some() {
                    one.may(sends(part.request), "zombie sends again");
                }
                let gave_up = Partition { library: Library::GaveUp, ..part };
                one.will(gave_up, "zombie gives up, its request stays in a queue");
            }
            Library::Refused if part.request.epoch == Some(0) => {
                one.will(sends(Request { epoch: Some(1), sequence: 0 }), "zombie bumps its epoch");
            }
            Library::Refused if self.variant == NewProducerId => {
                one.will(sends(Request { epoch: None, sequence: 0 }), "zombie takes a new id");
            }
            Library::Refused => {
                let request = Request { sequence: 0, ..part.request };
                one.will(Partition { library: Library::Dead, request, ..part }, "zombie exits");
            }
            Library::GaveUp | Library::Acked | Library::Dead => {}
        }
    }

    fn keeper(&self, one: &mut One<'_>, ready: bool) {
        let part = one.part;
        if !part.fenced && !self.may_skip(one.index) {
            let epoch = if self.variant == FenceNextEpoch { 1 } else { EPOCH_MAX };
            let Produced { success, entry, .. } = produce(part.entry, epoch, 0);
            if success {
                one.will(Partition { entry, fenced: true, ..part }, "fence acked");
            }
        }
        if part.fenced && self.variant == FenceForgotten && part.entry.is_some() {
            one.may(Partition { entry: None, ..part }, "leader forgets the producer");
        }
        if part.found.is_none() && (ready || self.variant == LookupBeforeFence) {
            one.will(Partition { found: Some(!part.log.is_empty()), ..part }, "keeper looks up");
        }
        if part.found == Some(false) && ready {
            let log = part.log.with(Writer::Keeper);
            one.will(Partition { log, found: Some(true), ..part }, "keeper writes the token");
        }
    }
}

fn leader(one: &mut One<'_>) {
    let part = one.part;
    for (which, request) in part.network.numbered() {
        let new_id = Produced { success: true, appended: !part.log.contains(&Writer::Zombie), entry: part.entry };
        let produced = request.epoch.map_or(new_id, |epoch| produce(part.entry, epoch, request.sequence));
        let log = if produced.appended { part.log.with(Writer::Zombie) } else { part.log };
        let answer = if produced.success { Library::Acked } else { Library::Refused };
        let answered = part.library == Library::Sent && part.request == request;
        let library = if answered { answer } else { part.library };
        let network = part.network.without(which);
        let next = Partition { entry: produced.entry, log, network, library, ..part };
        one.will(next, if produced.success { "leader says ok" } else { "leader refuses" });
    }
}

mod good {
    use super::*;

    #[test]
    fn good() {
        passes(&F9 { variant: Good }, 6096);
    }
}

mod broken {
    use super::*;

    #[test]
    fn deadline() {
        fails(&F9 { variant: Deadline }, "TWICE", 6);
    }

    #[test]
    fn fence_next_epoch() {
        fails(&F9 { variant: FenceNextEpoch }, "ACK WITHOUT A RECORD", 5);
    }

    #[test]
    fn lookup_before_fence() {
        fails(&F9 { variant: LookupBeforeFence }, "TWICE", 6);
    }

    #[test]
    fn only_where_it_wrote() {
        fails(&F9 { variant: OnlyWhereItWrote }, "TWICE", 5);
    }

    #[test]
    fn new_producer_id() {
        fails(&F9 { variant: NewProducerId }, "TWICE", 10);
    }

    #[test]
    fn fence_forgotten() {
        fails(&F9 { variant: FenceForgotten }, "TWICE", 6);
    }
}
