//! The log as a value: what it consists of, who uses it, and the passing of time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::appends::{Due, Incarnation, Standing};
use super::faults::Dice;
use super::tails::{TailId, TailState};
use super::topics::Topic;
use super::{FaultPlan, Limits};
use crate::journal::{Health, Partition, TopicIndex};

/// One run of a node process, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncarnationId(pub usize);

/// A partition of a kafka topic as it existed at some time: another one takes its place when it is recreated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) slot: usize,
    pub(super) number: u32,
}

/// The first producer id given out: not 0, so that a forgotten one shows.
const FIRST_PRODUCER_ID: i64 = 1000;

/// The whole log, its users included. See the [module](super).
#[derive(Debug)]
pub struct MemoryLog {
    pub(super) plan: FaultPlan,
    pub(super) limits: Limits,
    pub(super) dice: Dice,
    pub(super) now_ms: i64,
    /// Every kafka topic that ever was; a deleted one keeps its slot, empty.
    pub(super) topics: Vec<Topic>,
    pub(super) by_name: BTreeMap<String, usize>,
    pub(super) incarnations: Vec<Incarnation>,
    next_producer_id: i64,
    /// Stored in kafka topics that are not compacted; at most so much: retention and deletion are noticed when it is reached.
    pub(super) droppable_bytes: usize,
    /// Whose next group can be sent.
    pub(super) ready: VecDeque<(IncarnationId, Partition)>,
    /// What happens when; the second number keeps the order of those at the same time.
    dues: BTreeMap<(i64, u64), Due>,
    serial: u64,
    pub(super) tails: BTreeMap<TailId, TailState>,
    pub(super) woken: BTreeSet<TailId>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(plan: FaultPlan, limits: Limits) -> Self {
        Self {
            plan,
            limits: limits.sane(),
            dice: Dice::new(plan.seed),
            now_ms: 0,
            topics: Vec::new(),
            by_name: BTreeMap::new(),
            incarnations: Vec::new(),
            next_producer_id: FIRST_PRODUCER_ID,
            droppable_bytes: 0,
            ready: VecDeque::new(),
            dues: BTreeMap::new(),
            serial: 0,
            tails: BTreeMap::new(),
            woken: BTreeSet::new(),
        }
    }

    /// Changes what may go wrong from now on (a simulation that wants quiet at its end); the seed is drawn on, not set anew.
    pub fn set_faults(&mut self, plan: FaultPlan) {
        self.plan = FaultPlan { seed: self.plan.seed, ..plan };
    }

    /// A new incarnation, with its own producer id. `names` are the kafka topics that its indexes stand for; they need
    /// not exist yet.
    pub fn open(&mut self, names: Vec<String>) -> IncarnationId {
        let id = IncarnationId(self.incarnations.len());
        self.incarnations.push(Incarnation::new(names, self.next_producer_id));
        self.next_producer_id += 1;
        self.resolve_names();
        id
    }

    /// How many incarnations there have been; they are numbered from 0.
    pub fn incarnations(&self) -> usize {
        self.incarnations.len()
    }

    /// The producer id of an incarnation; −1 for one that does not exist.
    pub fn producer_id(&self, id: IncarnationId) -> i64 {
        self.incarnations.get(id.0).map_or(-1, |incarnation| incarnation.producer_id)
    }

    /// The number of partitions of a kafka topic; 0 while it does not exist.
    pub fn partitions(&self, id: IncarnationId, topic: TopicIndex) -> u32 {
        let slot = self.incarnations.get(id.0).and_then(|incarnation| incarnation.slot(topic));
        slot.and_then(|slot| self.topics.get(slot)).map_or(0, |topic| topic.spec.partitions)
    }

    /// Kafka's id of a kafka topic, another one for each creation; `None` while it does not exist.
    pub fn topic_id(&self, id: IncarnationId, topic: TopicIndex) -> Option<u128> {
        let slot = self.incarnations.get(id.0)?.slot(topic)?;
        self.topics.get(slot).map(|topic| topic.uuid)
    }

    /// How an incarnation is.
    pub fn health(&self, id: IncarnationId) -> Health {
        self.incarnations.get(id.0).map_or_else(Health::default, |incarnation| Health {
            silent_for: Some(self.silent_for(id)),
            pending_bytes: incarnation.pending_bytes,
            fenced: incarnation.standing == Standing::Fenced,
        })
    }

    /// When [`MemoryLog::advance`] is to be called next; `None` if nothing is under way.
    pub fn next_due_ms(&self) -> Option<i64> {
        if !self.ready.is_empty() {
            return Some(self.now_ms);
        }
        self.dues.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Lets everything happen that is due at `now_ms` (milliseconds since the Unix epoch; a step back counts as none).
    pub fn advance(&mut self, now_ms: i64) {
        loop {
            let due = self.dues.first_entry().filter(|entry| entry.key().0 <= now_ms);
            if let Some(entry) = due {
                self.now_ms = self.now_ms.max(entry.key().0);
                let due = entry.remove();
                self.handle_due(due);
            } else {
                self.now_ms = self.now_ms.max(now_ms);
                let Some((id, partition)) = self.ready.pop_front() else { return };
                self.send(id, partition);
            }
        }
    }

    fn handle_due(&mut self, due: Due) {
        match due {
            Due::Arrive { id, partition, serial } => self.on_arrival(id, partition, serial),
            Due::Answer { id, partition, serial } => self.on_answer(id, partition, serial),
            Due::LandLate { id, partition, serial } => self.on_late_landing(id, partition, serial),
            Due::WakeTail(tail) => {
                self.woken.insert(tail);
            }
            Due::Expire { id } => self.on_expiry(id),
        }
    }

    pub(super) fn schedule(&mut self, after_ms: u32, due: Due) {
        let serial = self.next_serial();
        self.dues.insert((self.now_ms + i64::from(after_ms), serial), due);
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}
