//! The actor that owns this node's sessions: it reads `mqtt.sessions` and `mqtt.cluster`, claims, writes every record of
//! a session and says when it was read back, fences dead nodes and acts for absent clients.
//!
//! All of its decisions are [`core::Core`]'s, a value; here they are carried out.

mod claiming;
mod cluster;
mod commands;
mod core;
mod doubt;
mod effect;
mod fights;
mod generation;
mod keeping;
mod looking;
mod marks;
mod owned;
mod parting;
mod reading;
mod routes;
mod take_over;
#[cfg(test)]
mod tests;
mod without;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

pub use self::commands::StewardHandle;
use self::commands::{Command, Commands};
use self::core::Core;
pub use self::core::{Identity, Limits};
use self::effect::{Effect, Input, Log};
use self::reading::Reading;
use self::routes::{Routes, look_through};
use super::writer::{AckRouter, NOBODY, Writer};
use crate::clock;
use crate::journal::{
    Batch, Isolation, NotTaken, Offset, Partition, SharedJournal, Tail, TailEvent, Ticket, TopicIndex,
};
use crate::ledger::ids::{Incarnation, Nonce, Origin, Token};
use crate::ledger::rules::Rules;
use crate::message::{Header, RecordRef, headers};
use crate::ops::tasks;
use crate::route::mapping::Mapping;

/// Tickets of the steward's appends.
pub(super) const STEWARD: u64 = u64::MAX - 2;
/// Answers of the journal that may wait.
const ANSWERS_MAX: usize = 64;
/// The core's clock ticks.
const TICK_MS: u64 = 250;
/// The key of records that readers drop, the same for all.
pub(super) const FENCE_KEY: &[u8] = b"mqtt-fence";
/// A question that failed is asked again after so long.
const ASK_AGAIN_MS: u64 = 200;
/// A fence may take so long before it is tried again.
const FENCE_MS_MAX: u64 = 20_000;

/// What the actor is built from.
pub struct Options {
    /// Reads and writes here.
    pub journal: SharedJournal,
    /// Appends wills.
    pub writer: Arc<Writer>,
    /// Brings the outcomes of connections that are gone.
    pub router: Arc<AckRouter>,
    /// Topic → kafka topic and key.
    pub mapping: Arc<Mapping>,
    /// `mqtt.sessions`.
    pub sessions: TopicIndex,
    /// `mqtt.cluster`.
    pub cluster: TopicIndex,
    /// Every kafka topic that a node may write.
    pub topics: u16,
    /// Times and bounds.
    pub limits: Limits,
    /// All of them; a simulation leaves one out to see what happens.
    pub rules: Rules,
    /// Who this node is.
    pub identity: Identity,
    /// Of the nonces.
    pub seed: u64,
    /// Set while nothing may be appended.
    pub suspended: Arc<AtomicBool>,
    /// Counts the samples that tokens are compared with.
    pub token_tick: Arc<AtomicU32>,
    /// Called once when this incarnation is over.
    pub on_exit: Box<dyn Fn(&'static str) + Send>,
    /// Told when the ledgers were replayed and the node may serve.
    pub on_ready: Option<oneshot::Sender<()>>,
}

/// Whose end was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A will's partition; the key of its session.
    Will(u64),
    /// The sample for W's tokens.
    Tokens,
}

/// What the journal answered.
enum Answer {
    Ends { ask: u64, ends: Vec<Origin> },
    Scanned { scan: u64, found: Vec<Token> },
    Fenced { incarnation: Incarnation, everywhere: bool },
    FencedAnew { topic_id: u128 },
    Replay { round: u64, ends: Vec<(Partition, crate::journal::Ends)> },
}

/// The queue of a steward that is about to be started: the journal needs it before the steward can have the journal.
#[derive(Debug, Default)]
pub struct Prepared {
    commands: Arc<Commands>,
}

impl Prepared {
    /// What the rest of the node speaks to.
    pub fn handle(&self) -> StewardHandle {
        StewardHandle::new(Arc::clone(&self.commands))
    }

    /// Starts the actor.
    pub fn start(self, options: Options) {
        let (answers_to, answers) = mpsc::channel(ANSWERS_MAX);
        let steward = Steward::new(options, answers_to);
        tasks::spawn("steward", run(steward, self.commands, answers));
    }
}

async fn run(mut steward: Steward, commands: Arc<Commands>, mut answers: mpsc::Receiver<Answer>) {
    let (journal, writer) = (Arc::clone(&steward.journal), Arc::clone(&steward.writer));
    let mut tail = journal.tail(Isolation::ReadUncommitted);
    let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    steward.begin_reading();
    loop {
        let (has_unsent, has_wills) = (!steward.unsent.is_empty(), !steward.unsent_wills.is_empty());
        tokio::select! {
            biased;
            event = tail.next() => steward.on_tail(&event, &mut *tail),
            Some(answer) = answers.recv() => steward.on_answer(answer, &mut *tail),
            batch = commands.take() => match batch {
                Some(batch) => batch.into_iter().for_each(|command| steward.on_command(command)),
                None => return,
            },
            () = journal.room(), if has_unsent => {}
            () = writer.room(), if has_wills => {}
            _ = ticks.tick() => steward.on_tick(),
        }
        steward.perform();
        commands.set_owned(steward.core.owned.len());
    }
}

struct Steward {
    core: Core,
    journal: SharedJournal,
    writer: Arc<Writer>,
    router: Arc<AckRouter>,
    routes: Arc<Routes>,
    sessions: TopicIndex,
    cluster: TopicIndex,
    topics: u16,
    suspended: Arc<AtomicBool>,
    on_exit: Box<dyn Fn(&'static str) + Send>,
    on_ready: Option<oneshot::Sender<()>>,
    answers_to: mpsc::Sender<Answer>,
    reading: Reading,
    /// Appends that found no room, oldest first.
    unsent: VecDeque<Effect>,
    /// Wills wait by themselves: a suspended node appends none, and its heartbeats must not stand behind them.
    unsent_wills: VecDeque<Effect>,
    started: Instant,
}

impl Steward {
    fn new(options: Options, answers_to: mpsc::Sender<Answer>) -> Self {
        let Options {
            journal, writer, router, mapping, sessions, cluster, topics, limits, rules, identity, seed, ..
        } = options;
        let routes =
            |journal| Routes { journal, mapping: Arc::clone(&mapping), token_tick: Arc::clone(&options.token_tick) };
        let core = Core::new(identity, limits, rules, routes(Arc::clone(&journal)), seed);
        Self {
            core,
            writer,
            router,
            routes: Arc::new(routes(Arc::clone(&journal))),
            sessions,
            cluster,
            topics,
            suspended: options.suspended,
            on_exit: options.on_exit,
            on_ready: options.on_ready,
            answers_to,
            reading: Reading::default(),
            unsent: VecDeque::new(),
            unsent_wills: VecDeque::new(),
            started: clock::now(),
            journal,
        }
    }

    fn set_now(&mut self) {
        let now = clock::now().saturating_duration_since(self.started);
        self.core.set_now(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    }

    fn on_tick(&mut self) {
        self.set_now();
        self.core.on_tick();
        self.seek_generation();
    }

    fn on_command(&mut self, command: Command) {
        self.set_now();
        self.core.command(command);
    }

    // ---- the tail

    fn log_of(&self, topic: TopicIndex) -> Log {
        if topic == self.cluster { Log::Cluster } else { Log::Sessions }
    }

    fn on_tail(&mut self, event: &TailEvent, tail: &mut dyn Tail) {
        self.set_now();
        match event {
            TailEvent::Batch(batch) => {
                self.on_batch(batch);
                self.progress(batch.partition, batch.next_offset);
            }
            TailEvent::Progress { partition, next, ends: _ } => self.progress(*partition, *next),
            TailEvent::PartitionsAdded { topic, partitions } => {
                tracing::error!(
                    ?topic,
                    partitions,
                    "a state kafka topic has more partitions: they are frozen, the new ones are not used"
                );
            }
            TailEvent::BelowLogStart { .. }
            | TailEvent::Rewound { .. }
            | TailEvent::Recreated { .. }
            | TailEvent::Gap { .. } => {
                tracing::error!(
                    ?event,
                    "a state kafka topic lost its place: every session is dropped and the log is read again"
                );
                self.lose(tail);
            }
        }
    }

    fn on_batch(&mut self, batch: &Batch) {
        let log = self.log_of(batch.partition.topic);
        for record in batch {
            let Some(key) = record.key else { continue };
            self.core.handle(Input::Record {
                log,
                partition: batch.partition.number,
                offset: record.offset.0,
                append_ms: record.timestamp_ms,
                key,
                value: record.value(),
            });
        }
    }

    fn on_answer(&mut self, answer: Answer, tail: &mut dyn Tail) {
        self.set_now();
        match answer {
            Answer::Ends { ask, ends } => self.core.handle(Input::Ends { ask, ends }),
            Answer::Scanned { scan, found } => self.core.handle(Input::Scanned { scan, found }),
            Answer::Fenced { incarnation, everywhere } => {
                self.core.handle(Input::FencedAt { incarnation, everywhere });
            }
            Answer::FencedAnew { topic_id } => {
                self.core.handle(Input::FencedAnew { topic_id });
                self.seek_generation();
            }
            Answer::Replay { round, ends } => self.on_ends(round, &ends, tail),
        }
    }

    // ---- effects

    fn perform(&mut self) {
        let (unsent, wills) = (std::mem::take(&mut self.unsent), std::mem::take(&mut self.unsent_wills));
        self.unsent = self.try_again(unsent);
        self.unsent_wills = self.try_again(wills);
        for effect in self.core.take_effects() {
            match effect {
                Effect::Append { .. } | Effect::ProbeMessages { .. } => {
                    if !self.unsent.is_empty() || !self.try_append(&effect) {
                        self.unsent.push_back(effect);
                    }
                }
                Effect::AppendWill { .. } => {
                    if !self.unsent_wills.is_empty() || !self.try_append(&effect) {
                        self.unsent_wills.push_back(effect);
                    }
                }
                Effect::Tell { mailbox, notice } => mailbox.post(notice),
                Effect::AskEnds { ask } => self.ask_ends(ask),
                Effect::Scan { scan, partition, from, nonces } => self.scan(scan, partition, from, nonces),
                Effect::Fence { incarnation, producer_id } => self.fence(incarnation, producer_id),
                Effect::FenceAnew { topic_id, producer_ids } => self.fence_anew(topic_id, producer_ids),
                Effect::Drained(connection) => self.router.end_draining(connection),
                Effect::Suspend(suspended) => {
                    self.suspended.store(suspended, Ordering::Release);
                    self.writer.on_suspended();
                }
                Effect::Exit { why } => (self.on_exit)(why),
            }
        }
    }

    /// Appends in order; what finds no room, and all behind it, goes on waiting.
    fn try_again(&self, mut waiting: VecDeque<Effect>) -> VecDeque<Effect> {
        while let Some(effect) = waiting.pop_front() {
            if !self.try_append(&effect) {
                waiting.push_front(effect);
                break;
            }
        }
        waiting
    }

    /// False if there was no room.
    fn try_append(&self, effect: &Effect) -> bool {
        let result = match effect {
            Effect::Append { sequence, log, partition, key, value } => {
                let topic = match log {
                    Log::Sessions => self.sessions,
                    Log::Cluster => self.cluster,
                };
                let partition = Partition { topic, number: *partition };
                let record =
                    RecordRef { key: Some(key), value: value.as_deref(), headers: &[], timestamp_ms: clock::wall_ms() };
                let owner = if *sequence == 0 { NOBODY } else { STEWARD };
                self.journal.append(Ticket { owner, sequence: *sequence }, partition, &record)
            }
            Effect::AppendWill { sequence, publish, token, publisher } => {
                self.writer.append_will(Ticket { owner: STEWARD, sequence: *sequence }, publish, *token, publisher)
            }
            Effect::ProbeMessages { sequence, partition } => {
                let record = RecordRef {
                    key: Some(FENCE_KEY),
                    value: None,
                    headers: &[Header { name: headers::FENCE, value: Some(b"") }],
                    timestamp_ms: clock::wall_ms(),
                };
                self.journal.append(Ticket { owner: STEWARD, sequence: *sequence }, *partition, &record)
            }
            Effect::Tell { .. }
            | Effect::AskEnds { .. }
            | Effect::Scan { .. }
            | Effect::Fence { .. }
            | Effect::FenceAnew { .. }
            | Effect::Drained(_)
            | Effect::Suspend(_)
            | Effect::Exit { .. } => Ok(()),
        };
        match result {
            Ok(()) => true,
            Err(NotTaken::Full) => false,
            Err(error) => {
                tracing::error!(%error, "a state record could not be appended");
                true
            }
        }
    }

    fn ask_ends(&self, ask: u64) {
        let (journal, answers_to, routes) =
            (Arc::clone(&self.journal), self.answers_to.clone(), Arc::clone(&self.routes));
        tasks::spawn("message ends", async move {
            let partitions = routes.message_partitions();
            let ends = loop {
                match journal.ends(&partitions).await {
                    Ok(ends) => break ends,
                    Err(error) => {
                        tracing::debug!(%error, "the ends of the message partitions are not known yet");
                        tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await;
                    }
                }
            };
            let origin = |(partition, ends): (&Partition, &crate::journal::Ends)| {
                Some(Origin { place: routes.place_of(*partition)?, offset: ends.high_watermark.0 })
            };
            let ends = partitions.iter().zip(&ends).filter_map(origin).collect();
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Ends { ask, ends }).await;
        });
    }

    fn scan(&self, scan: u64, partition: Partition, from: i64, nonces: Vec<Nonce>) {
        let (journal, answers_to) = (Arc::clone(&self.journal), self.answers_to.clone());
        tasks::spawn("token look-up", async move {
            let found = look_through(&journal, partition, Offset(from), &nonces).await;
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Scanned { scan, found }).await;
        });
    }

    fn fence(&self, incarnation: Incarnation, producer_id: i64) {
        let (journal, answers_to) = (Arc::clone(&self.journal), self.answers_to.clone());
        let of = |topic: u16| {
            let topic = TopicIndex(topic);
            (0..self.journal.partitions(topic)).map(move |number| Partition { topic, number })
        };
        let partitions: Vec<Partition> = (0..self.topics).flat_map(of).collect();
        tasks::spawn("fence", async move {
            let results = journal.fence(producer_id, &partitions, Duration::from_millis(FENCE_MS_MAX)).await;
            let failed = results.iter().find_map(|result| result.as_ref().err());
            if let Some(error) = failed {
                tracing::warn!(%incarnation, %error, "a dead node is not fenced everywhere yet");
            } else {
                tracing::info!(%incarnation, "a dead node is fenced in every partition");
            }
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Fenced { incarnation, everywhere: failed.is_none() }).await;
        });
    }
}
