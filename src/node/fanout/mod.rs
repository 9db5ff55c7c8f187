//! The actor that tails the message partitions and hands each record to whom it concerns.
//!
//! It owns the trie, every subscription's start and every session's position. It never waits for a connection: a mailbox
//! without room makes that one subscriber lag ([`lag`]). All that lag in a partition share one reader ([`sweep`]), which
//! takes what it can from memory ([`recent`]) and the rest from Kafka. Sessions that keep up have no position records of
//! their own but the node's watermark ([`watermark`]).

mod catch_up;
mod changes;
mod commands;
mod follower;
mod interest;
mod lag;
mod places;
mod recent;
mod retaining;
mod round;
mod snapshots;
mod starts;
mod subscribe;
mod sweep;
mod tail;
mod ticks;
mod watermark;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::catch_up::CaughtUp;
use self::commands::Commands;
use self::follower::Follower;
use self::interest::Interest;
use self::places::Places;
use self::recent::Recent;
use self::retaining::{RetainedAnswer, Retaining};
use self::round::{OpenRound, Round};
use self::snapshots::Snapshot;
use self::sweep::Sweeps;
use self::tail::Found;
use self::watermark::Watermarks;
use super::connections::ConnectionId;
use crate::journal::{Ends, Isolation, Offset, Partition, SharedJournal, Tail, TailEvent, TopicIndex};
use crate::ledger::ids::Place;
use crate::ledger::rules::Rules;
use crate::ops::metrics::Metrics;
use crate::ops::tasks;
use crate::route::mapping::Mapping;
use crate::route::trie::Trie;
use crate::session::{Parting, Subscription};

pub use commands::FanoutHandle;
pub use retaining::RetainedOptions;

/// Questions to the journal that may be under way at once: one for ends, one for each partition in which somebody lags.
const QUESTIONS_MAX: usize = 64;

/// An append to `mqtt.retained` that failed is tried again after so long.
const RETRY_MS: u64 = 250;

/// What the actor is built from.
pub struct Options {
    /// Read from here.
    pub journal: SharedJournal,
    /// Kafka topic and key → MQTT topic. Its kafka topics are the journal's first ones, in the same order.
    pub mapping: Arc<Mapping>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What foreign transactions hide.
    pub isolation: Isolation,
    /// Random, so that nobody can choose filters that collide.
    pub trie_seed: u64,
    /// Who is told what sessions leave behind, and the watermark.
    pub reports: Arc<dyn Reports>,
    /// Bytes of the log's end that are kept in memory for subscribers that lag.
    pub recent_bytes_max: usize,
    /// Time between two watermarks, and between two marks of retained messages.
    pub watermark_interval_ms: u64,
    /// All of them; a simulation leaves one out to see what happens.
    pub rules: Rules,
    /// None: nothing is retained.
    pub retained: Option<RetainedOptions>,
}

/// Who writes down what this actor knows of sessions. Never waits.
pub trait Reports: Send + Sync + 'static {
    /// A connection has ended; the position in `parting` is filled in.
    fn parted(&self, connection: ConnectionId, parting: Box<Parting>);
    /// What a tick of the watermark brings.
    fn watermark(&self, round: WatermarkRound);
}

/// What a tick of the watermark brings (DESIGN §5.1). Sessions are told after this was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatermarkRound {
    /// They follow no longer: neither this nor a later watermark may be written before the explicit position that each of
    /// them writes now, or leaves behind (W3).
    pub detached: Vec<ConnectionId>,
    /// They have acknowledged more than any watermark so far says: none need wait for a position of theirs any more.
    pub attached: Vec<ConnectionId>,
    /// The watermark; it takes the place of one that still waits.
    pub done: Option<Vec<(Place, i64)>>,
}

/// For a node whose sessions all end with their connections.
impl Reports for () {
    fn parted(&self, _connection: ConnectionId, _parting: Box<Parting>) {}
    fn watermark(&self, _round: WatermarkRound) {}
}

/// Starts the actor.
pub fn start(options: Options) -> FanoutHandle {
    let commands = Arc::new(Commands::default());
    let (answers_to, answers) = mpsc::channel(QUESTIONS_MAX);
    let tail = options.journal.tail(options.isolation);
    let retained_tail = options.journal.tail(Isolation::ReadUncommitted);
    let mut ticks = interval(Duration::from_millis(options.watermark_interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let fanout = Fanout::new(options, answers_to);
    let handle = FanoutHandle::new(Arc::clone(&commands), Arc::clone(&fanout.tick));
    tasks::spawn("fanout", run(fanout, [tail, retained_tail], ticks, commands, answers));
    handle
}

async fn run(
    mut fanout: Fanout,
    [mut tail, mut retained_tail]: [Box<dyn Tail>; 2],
    mut ticks: Interval,
    commands: Arc<Commands>,
    mut answers: mpsc::Receiver<Answer>,
) {
    let journal = Arc::clone(&fanout.journal);
    let mut retries = interval(Duration::from_millis(RETRY_MS));
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => fanout.on_tick(),
            event = tail.next() => fanout.on_tail(event, &mut *tail),
            event = retained_tail.next(), if fanout.retaining.is_some() => {
                fanout.on_retained_tail(&event, &mut *retained_tail);
            }
            () = commands.some() => {}
            Some(answer) = answers.recv() => fanout.on_answer(answer, &mut *tail, &mut *retained_tail),
            _ = retries.tick(), if fanout.is_resting() => fanout.on_rested(),
            () = journal.room(), if fanout.is_stalled() => fanout.on_journal_room(),
            () = std::future::ready(()), if fanout.sweeps.has_work() => {}
        }
        // In every turn, so that a tail that always has something to say holds up nobody.
        let Some(batch) = commands.take() else {
            commands.set_ended();
            return;
        };
        batch.into_iter().for_each(|command| fanout.on_command(command, &mut *tail));
        while let Ok(answer) = answers.try_recv() {
            fanout.on_answer(answer, &mut *tail, &mut *retained_tail);
        }
        fanout.catch_up();
        fanout.wake();
    }
}

/// What the journal answered.
#[derive(Debug)]
enum Answer {
    /// To the round that was asked.
    Ends(Vec<(Partition, Ends)>),
    /// To a sweep.
    CaughtUp(CaughtUp),
    /// For retained messages.
    Retained(RetainedAnswer),
}

#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    round: Arc<Round>,
}

struct Fanout {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    isolation: Isolation,
    reports: Arc<dyn Reports>,
    answers_to: mpsc::Sender<Answer>,
    trie: Trie<ConnectionId, Entry>,
    followers: HashMap<ConnectionId, Follower>,
    interest: Interest,
    places: Places,
    /// Where the tail is, of every partition it follows.
    positions: BTreeMap<Partition, Offset>,
    collecting: OpenRound,
    asked: Option<OpenRound>,
    /// Answered, but the tail is still before some start.
    starting: Vec<Arc<Round>>,
    /// Of all resumed subscriptions.
    long_passed: Arc<Round>,
    sweeps: Sweeps,
    recent: Recent,
    watermarks: Watermarks,
    /// [`Watermarks::tick`] for the rest of the node.
    tick: Arc<AtomicU32>,
    /// None: nothing is retained.
    retaining: Option<Box<Retaining>>,
    /// Subscriptions that may still get retained messages.
    snapshots: BTreeMap<ConnectionId, Vec<Snapshot>>,
    found: Vec<Found>,
    wakers: Vec<Waker>,
}

impl Fanout {
    fn new(options: Options, answers_to: mpsc::Sender<Answer>) -> Self {
        let Options {
            journal, mapping, metrics, isolation, trie_seed, reports, recent_bytes_max, rules, retained, ..
        } = options;
        let topics = u16::try_from(mapping.kafka_topics().len()).unwrap_or(u16::MAX);
        let interest = Interest::new((0..topics).map(|topic| journal.partitions(TopicIndex(topic))));
        let mut places = Places::default();
        (0..topics).map(TopicIndex).for_each(|topic| places.set(topic, journal.topic_id(topic)));
        let watermarks = Watermarks::new(rules);
        let tick = Arc::new(AtomicU32::new(watermarks.tick()));
        let retaining = retained.map(|retained| {
            let (journal, mapping, metrics) = (Arc::clone(&journal), Arc::clone(&mapping), Arc::clone(&metrics));
            Box::new(Retaining::new(retained, rules, journal, mapping, metrics, answers_to.clone()))
        });
        Self {
            journal,
            mapping,
            metrics,
            isolation,
            reports,
            answers_to,
            trie: Trie::with_seed(trie_seed),
            followers: HashMap::new(),
            interest,
            places,
            positions: BTreeMap::new(),
            collecting: OpenRound::new(0),
            asked: None,
            starting: Vec::new(),
            long_passed: Arc::new(Round::long_passed()),
            sweeps: Sweeps::default(),
            recent: Recent::new(recent_bytes_max),
            watermarks,
            tick,
            retaining,
            snapshots: BTreeMap::new(),
            found: Vec::new(),
            wakers: Vec::new(),
        }
    }

    fn on_retained_tail(&mut self, event: &TailEvent, tail: &mut dyn Tail) {
        let Some(retaining) = self.retaining.as_deref_mut() else { return };
        let mut news = Vec::new();
        retaining.on_tail(event, tail, &mut news);
        self.on_retained_read(&news);
    }

    fn is_stalled(&self) -> bool {
        self.retaining.as_deref().is_some_and(Retaining::is_stalled)
    }

    fn is_resting(&self) -> bool {
        self.retaining.as_deref().is_some_and(Retaining::is_resting)
    }

    fn on_rested(&mut self) {
        if let Some(retaining) = self.retaining.as_deref_mut() {
            retaining.on_rested();
        }
    }

    fn on_journal_room(&mut self) {
        if let Some(retaining) = self.retaining.as_deref_mut() {
            retaining.on_room();
        }
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn count_lost(&self, records: i64) {
        self.metrics.records_lost.inc_by(u64::try_from(records).unwrap_or(0));
    }

    fn topic_name(&self, topic: TopicIndex) -> &str {
        self.mapping.kafka_topics().get(usize::from(topic.0)).map_or("?", String::as_str)
    }
}

#[cfg(test)]
mod tests;
