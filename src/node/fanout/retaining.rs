//! Retained messages on this node: reads `mqtt.retained`, writes what is owed there, marks, and does what dead nodes left
//! undone. All decisions are those of [`crate::ledger::retained`]; what subscribers get is in [`super::snapshots`].
//!
//! ```text
//!            both logs were read to the ends seen at start        the first marks are in the log
//!  Replaying ──────────────────────────────────────────▶ Marking ────────────────────────────────▶ Ready
//! ```
//! The first marks come before the first message of a client: whoever reads a record of this node's in `mqtt.retained`
//! has read that there is such a node, and a keeper knows from where to look.

mod doubts;
mod duties;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Answer;
use crate::journal::{
    Batch, Ends, JournalError, Offset, Partition, SharedJournal, Tail, TailEvent, Ticket, TopicIndex,
};
use crate::ledger::ids::{Incarnation, Place, topic_number};
use crate::ledger::members::{ClusterApplied, Members};
use crate::ledger::retained::keeper::Keeper;
use crate::ledger::retained::marks::{Marks, Sampler, Vector};
use crate::ledger::retained::record::{self, Key};
use crate::ledger::retained::store::{Applied, Record, Store};
use crate::ledger::retained::writer::Writer;
use crate::ledger::rules::Rules;
use crate::message::{self, Decoded};
use crate::node::replay::Replay;
use crate::node::retains::Retains;
use crate::ops::metrics::Metrics;
use crate::ops::tasks;
use crate::route::mapping::Mapping;

/// How long a question that failed rests before it is asked again.
const ASK_AGAIN_MS: u64 = 200;

/// What retained messages need.
pub struct RetainedOptions {
    /// Retain-flagged publishes on their way to the log.
    pub retains: Arc<Retains>,
    /// `mqtt.retained`.
    pub retained: TopicIndex,
    /// `mqtt.cluster`.
    pub cluster: TopicIndex,
    /// Names the node's marks.
    pub incarnation: Incarnation,
    /// Told when the node may serve.
    pub on_ready: Option<oneshot::Sender<()>>,
}

/// What the journal answered.
#[derive(Debug)]
pub(super) enum RetainedAnswer {
    /// Where `mqtt.retained` and `mqtt.cluster` begin and end.
    Replay(Vec<(Partition, Ends)>),
    /// Where the partitions of messages end.
    Sample(Vector),
    /// What a dead node had appended with the retain flag, of topics in these partitions of `mqtt.retained`.
    Looked { dead: Incarnation, partitions: BTreeSet<u32>, found: duties::FoundRetains },
    /// What this node had appended of what was in doubt in a partition of messages.
    Decided { partition: Partition, found: duties::FoundRetains },
}

/// A topic's record was applied; whoever has just subscribed may want it.
#[derive(Debug)]
pub(super) struct News {
    pub(super) partition: u32,
    pub(super) topic: Box<str>,
    pub(super) applied: Applied,
    pub(super) has_message: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Replaying,
    Marking,
    Ready,
}

pub(super) struct Retaining {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    answers_to: mpsc::Sender<Answer>,
    retains: Arc<Retains>,
    retained: TopicIndex,
    cluster: TopicIndex,
    pub(super) incarnation: Incarnation,
    pub(super) rules: Rules,
    on_ready: Option<oneshot::Sender<()>>,
    standing: Standing,
    replay: Replay,
    pub(super) store: Store,
    pub(super) marks: Marks,
    writer: Writer,
    keeper: Keeper,
    sampler: Sampler,
    members: Members,
    sampling: bool,
    /// The last mark, and where it is not in the log yet.
    mark: Vec<(Place, i64)>,
    unmarked: BTreeSet<u32>,
    mark_writes: BTreeMap<u64, u32>,
    next_mark: u64,
    /// Retain-flagged publishes of unknown fate.
    doubts: doubts::Doubts,
    /// Ticks since a node has had a mark and no heartbeat.
    unknown: BTreeMap<Incarnation, u32>,
    /// There was no room for an append.
    stalled: bool,
    /// Partitions of `mqtt.retained` whose marks changed.
    marked: BTreeSet<u32>,
}

impl Retaining {
    pub(super) fn new(
        options: RetainedOptions,
        rules: Rules,
        journal: SharedJournal,
        mapping: Arc<Mapping>,
        metrics: Arc<Metrics>,
        answers_to: mpsc::Sender<Answer>,
    ) -> Self {
        let RetainedOptions { retains, retained, cluster, incarnation, on_ready } = options;
        let sampler = Sampler::default();
        retains.set_tick(sampler.tick());
        let partitions = journal.partitions(retained);
        Self {
            journal,
            mapping,
            metrics,
            answers_to,
            retains,
            retained,
            cluster,
            incarnation,
            rules,
            on_ready,
            standing: Standing::Replaying,
            replay: Replay::default(),
            store: Store::new(rules, partitions),
            marks: Marks::default(),
            writer: Writer::new(rules),
            keeper: Keeper::new(rules),
            sampler,
            members: Members::default(),
            sampling: false,
            mark: Vec::new(),
            unmarked: BTreeSet::new(),
            mark_writes: BTreeMap::new(),
            next_mark: writing::FIRST_MARK,
            doubts: doubts::Doubts::default(),
            unknown: BTreeMap::new(),
            stalled: false,
            marked: BTreeSet::new(),
        }
    }

    /// Partitions of `mqtt.retained`; their number is frozen.
    pub(super) fn partitions(&self) -> std::ops::Range<u32> {
        0..self.journal.partitions(self.retained)
    }

    fn place_of(&self, partition: Partition) -> Option<Place> {
        let topic = topic_number(self.journal.topic_id(partition.topic)?);
        Some(Place { topic, partition: partition.number })
    }

    /// Asks in a task of its own, until there is an answer.
    fn ask(&self, partitions: Vec<Partition>, answer: impl FnOnce(Vec<(Partition, Ends)>) -> Answer + Send + 'static) {
        let (journal, answers_to) = (Arc::clone(&self.journal), self.answers_to.clone());
        tasks::spawn("retained ends", async move {
            let Some(ends) = ends_of(&journal, &partitions).await else { return };
            // An actor that is gone needs no answer.
            let _ = answers_to.send(answer(partitions.into_iter().zip(ends).collect())).await;
        });
    }

    pub(super) fn ask_replay(&self) {
        let of = |topic| (0..self.journal.partitions(topic)).map(move |number| Partition { topic, number });
        let partitions = of(self.cluster).chain(of(self.retained)).collect();
        self.ask(partitions, |ends| Answer::Retained(RetainedAnswer::Replay(ends)));
    }

    pub(super) fn on_answer(&mut self, answer: RetainedAnswer, tail: &mut dyn Tail) {
        match answer {
            RetainedAnswer::Replay(ends) => {
                for (partition, from) in self.replay.begin(&ends) {
                    tail.follow(partition, from);
                }
                if self.replay.is_over_at_once() {
                    self.on_replayed();
                }
            }
            RetainedAnswer::Sample(ends) => self.on_sample(ends),
            RetainedAnswer::Looked { dead, partitions, found } => self.on_looked(dead, &partitions, found),
            RetainedAnswer::Decided { partition, found } => self.on_decided(partition, &found),
        }
    }

    // ---- the tail

    pub(super) fn on_tail(&mut self, event: &TailEvent, tail: &mut dyn Tail, news: &mut Vec<News>) {
        match event {
            TailEvent::Batch(batch) => {
                if batch.partition.topic == self.cluster {
                    self.on_cluster(batch);
                } else {
                    self.on_batch(batch, news);
                }
                self.progress(batch.partition, batch.next_offset);
            }
            TailEvent::Progress { partition, next, ends: _ } => self.progress(*partition, *next),
            TailEvent::PartitionsAdded { topic, partitions } => {
                tracing::error!(
                    ?topic,
                    partitions,
                    "the partitions of this kafka topic are frozen; new ones are not used"
                );
            }
            TailEvent::BelowLogStart { .. }
            | TailEvent::Rewound { .. }
            | TailEvent::Recreated { .. }
            | TailEvent::Gap { .. } => {
                tracing::error!(?event, "mqtt.retained or mqtt.cluster lost its place: both are read again");
                for partition in self.replay.restart() {
                    tail.unfollow(partition);
                }
                self.store = Store::new(self.rules, self.journal.partitions(self.retained));
                self.marks = Marks::default();
                self.members = Members::default();
                self.ask_replay();
            }
        }
    }

    fn on_batch(&mut self, batch: &Batch, news: &mut Vec<News>) {
        let partition = batch.partition.number;
        for stored in batch {
            let (Some(key), offset) = (stored.key, stored.offset.0) else { continue };
            if message::is_fence(stored.headers()) {
                continue;
            }
            let topic = match Key::decode(key) {
                Some(Key::Topic(topic)) if self.store.partition_of(topic) == partition => topic,
                Some(Key::Mark(incarnation)) => {
                    let mark = stored.value().and_then(record::decode_mark);
                    if mark.is_none() && incarnation == self.incarnation {
                        // Somebody took this node for dead: the next sample is a mark again.
                        self.sampler.forget_emitted();
                    }
                    self.marks.apply(partition, incarnation, mark);
                    self.marked.insert(partition);
                    continue;
                }
                Some(Key::Topic(_)) | None => {
                    self.metrics.retained_ignored.inc();
                    continue;
                }
            };
            let message = match message::decode(topic, stored.value(), stored.headers()) {
                Decoded::Message { message, headers_ignored: _ } => Some(message),
                Decoded::Tombstone | Decoded::Fence => None,
            };
            let has_message = message.as_ref().is_some_and(|message| !message.payload().is_empty());
            let rank = record::rank_of(stored.headers());
            let applied = self.store.apply(Record { offset, append_ms: stored.timestamp_ms, topic, rank, message });
            self.writer.on_applied(partition, topic, offset, &applied);
            if applied.raised && self.standing != Standing::Replaying {
                news.push(News { partition, topic: topic.into(), applied, has_message });
            }
        }
    }

    fn on_cluster(&mut self, batch: &Batch) {
        for stored in batch {
            let Some(key) = stored.key else { continue };
            match self.members.apply(stored.offset.0, stored.timestamp_ms, key, stored.value()) {
                ClusterApplied::Fenced { .. } | ClusterApplied::Beat { left: true, .. } => self.keep(),
                ClusterApplied::Beat { .. }
                | ClusterApplied::Evicted { .. }
                | ClusterApplied::KafkaTopic { .. }
                | ClusterApplied::Fingerprint(_)
                | ClusterApplied::Generation { .. }
                | ClusterApplied::Gone(_)
                | ClusterApplied::Ignored(_) => {}
            }
        }
    }

    fn progress(&mut self, partition: Partition, next: Offset) {
        if partition.topic == self.retained {
            self.writer.on_progress(&self.store, partition.number, next.0);
            self.metrics.retained_topics.set(i64::try_from(self.store.len()).unwrap_or(i64::MAX));
        }
        if self.replay.on_progress(partition, next) {
            self.on_replayed();
        }
        self.work();
    }

    fn on_replayed(&mut self) {
        if self.standing == Standing::Replaying {
            self.standing = Standing::Marking;
            self.sample();
        }
    }

    /// Partitions of `mqtt.retained` whose marks changed since this was asked.
    pub(super) fn take_marked(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.marked)
    }

    pub(super) fn on_tick(&mut self) {
        self.keeper.on_tick();
        match self.standing {
            Standing::Replaying => return,
            Standing::Marking | Standing::Ready => {}
        }
        self.count_unknown();
        self.keep();
        self.try_mark();
        self.sample();
        self.work();
    }

    /// What can be done at once.
    pub(super) fn work(&mut self) {
        if self.standing == Standing::Replaying {
            return;
        }
        self.rewrite_foreign();
        self.write_owed();
        if self.retains.is_empty() {
            self.try_mark();
        }
    }

    pub(super) const fn is_stalled(&self) -> bool {
        self.stalled
    }

    pub(super) fn on_room(&mut self) {
        self.stalled = false;
        self.on_rested();
    }

    /// Whether something failed and is to be tried again soon.
    pub(super) fn is_resting(&self) -> bool {
        self.writer.is_resting() || !self.unmarked.is_empty() || self.doubts.is_open()
    }

    pub(super) fn on_rested(&mut self) {
        self.writer.rested();
        self.write_marks();
        self.probe();
        self.work();
    }

    pub(super) fn on_retain(&mut self, ticket: Ticket) {
        self.owe(ticket);
        self.work();
    }
}

/// `None`: the journal is closed.
async fn ends_of(journal: &SharedJournal, partitions: &[Partition]) -> Option<Vec<Ends>> {
    loop {
        match journal.ends(partitions).await {
            Ok(ends) => return Some(ends),
            Err(JournalError::Closed) => return None,
            Err(error @ (JournalError::Unavailable { .. } | JournalError::Refused { .. })) => {
                tracing::debug!(%error, "retained messages wait for the ends of partitions");
                tokio::time::sleep(std::time::Duration::from_millis(ASK_AGAIN_MS)).await;
            }
        }
    }
}
