//! The actor that tails the message partitions and hands each record to whom it concerns.
//!
//! It owns the trie and every subscription's start. It never waits for a connection: a mailbox without room makes that
//! one subscriber lag ([`lag`]), which then reads from Kafka what it missed, in its own time.

mod commands;
mod interest;
mod lag;
mod round;
mod starts;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;
use tokio::sync::mpsc;

use self::interest::Interest;
use self::lag::{CaughtUp, Lag};
use self::round::{Held, OpenRound, Round, Verdict};
use super::connections::ConnectionId;
use super::mailbox::{Mailbox, Notice, Pushed};
use crate::journal::{
    Batch, Ends, Isolation, Offset, Partition, SharedJournal, StoredRecord, Tail, TailEvent, TopicIndex,
};
use crate::message::{self, Decoded, Message};
use crate::mqtt::packet::QoS;
use crate::mqtt::{ClientId, TopicFilter};
use crate::ops::metrics::{DropReason, Metrics};
use crate::ops::tasks;
use crate::route::mapping::{MappedTopic, Mapping};
use crate::route::partition::partition_of;
use crate::route::trie::Trie;
use crate::session::{Delivery, Follow, Subscription};

pub use commands::FanoutHandle;
use commands::{Command, Commands};

/// Questions to the journal that may be under way at once: one for ends, the rest for lagging subscribers.
const QUESTIONS_MAX: usize = 64;

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
}

/// Starts the actor.
pub fn start(options: Options) -> FanoutHandle {
    let commands = Arc::new(Commands::default());
    let (answers_to, answers) = mpsc::channel(QUESTIONS_MAX);
    let tail = options.journal.tail(options.isolation);
    let fanout = Fanout::new(options, answers_to);
    tasks::spawn("fanout", run(fanout, tail, Arc::clone(&commands), answers));
    FanoutHandle::new(commands)
}

async fn run(
    mut fanout: Fanout,
    mut tail: Box<dyn Tail>,
    commands: Arc<Commands>,
    mut answers: mpsc::Receiver<Answer>,
) {
    let mut turn = 0_u32;
    loop {
        turn = turn.wrapping_add(1);
        match hear(turn, &mut *tail, &commands, &mut answers).await {
            Heard::Tail(event) => fanout.on_tail(event, &mut *tail),
            Heard::Commands(batch) => batch.into_iter().for_each(|command| fanout.on_command(command, &mut *tail)),
            Heard::Answer(answer) => fanout.on_answer(answer, &mut *tail),
            Heard::Closed => return,
        }
        fanout.wake();
    }
}

/// What the actor acts on.
enum Heard {
    Tail(TailEvent),
    Commands(Vec<Command>),
    Answer(Answer),
    Closed,
}

/// Who is listened to first changes from turn to turn, so that none of the three can starve the others.
async fn hear(turn: u32, tail: &mut dyn Tail, commands: &Commands, answers: &mut mpsc::Receiver<Answer>) -> Heard {
    let tail = async { Heard::Tail(tail.next().await) };
    let commands = async { commands.take().await.map_or(Heard::Closed, Heard::Commands) };
    let answers = async { answers.recv().await.map_or(Heard::Closed, Heard::Answer) };
    match turn % 3 {
        0 => first_of(tail, commands, answers).await,
        1 => first_of(commands, answers, tail).await,
        _ => first_of(answers, tail, commands).await,
    }
}

async fn first_of<T>(a: impl Future<Output = T>, b: impl Future<Output = T>, c: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        first = a => first,
        first = b => first,
        first = c => first,
    }
}

/// What the journal answered.
#[derive(Debug)]
enum Answer {
    /// To the round that was asked.
    Ends(Vec<(Partition, Ends)>),
    /// To a lagging subscriber.
    CaughtUp(CaughtUp),
}

#[derive(Debug)]
struct Entry {
    subscription: Subscription,
    round: Arc<Round>,
}

#[derive(Debug)]
struct Follower {
    client_id: ClientId,
    mailbox: Arc<Mailbox>,
    /// Sorted.
    filters: Vec<TopicFilter>,
    lag: Option<Box<Lag>>,
}

/// One matching subscription of a record.
#[derive(Clone, Copy, Debug)]
struct Found {
    connection: ConnectionId,
    subscription: Subscription,
    /// The round that is still open.
    held_by: Option<u64>,
}

struct Fanout {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    isolation: Isolation,
    answers_to: mpsc::Sender<Answer>,
    trie: Trie<ConnectionId, Entry>,
    followers: HashMap<ConnectionId, Follower>,
    interest: Interest,
    /// Where the tail is, of every partition it follows.
    positions: BTreeMap<Partition, Offset>,
    collecting: OpenRound,
    asked: Option<OpenRound>,
    /// Answered, but the tail is still before some start.
    starting: Vec<Arc<Round>>,
    found: Vec<Found>,
    wakers: Vec<Waker>,
}

impl Fanout {
    fn new(options: Options, answers_to: mpsc::Sender<Answer>) -> Self {
        let Options { journal, mapping, metrics, isolation, trie_seed } = options;
        let topics = u16::try_from(mapping.kafka_topics().len()).unwrap_or(u16::MAX);
        let interest = Interest::new((0..topics).map(|topic| journal.partitions(TopicIndex(topic))));
        Self {
            journal,
            mapping,
            metrics,
            isolation,
            answers_to,
            trie: Trie::with_seed(trie_seed),
            followers: HashMap::new(),
            interest,
            positions: BTreeMap::new(),
            collecting: OpenRound::new(0),
            asked: None,
            starting: Vec::new(),
            found: Vec::new(),
            wakers: Vec::new(),
        }
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    // ---- what the tail says

    fn on_tail(&mut self, event: TailEvent, tail: &mut dyn Tail) {
        match event {
            TailEvent::Batch(batch) => self.on_batch(&batch, tail),
            TailEvent::Progress { partition, next, ends: _ } => self.advance(partition, next),
            TailEvent::BelowLogStart { partition, position, log_start } => {
                self.metrics.tail_gaps.inc();
                self.count_lost(log_start.0.saturating_sub(position.0));
                tracing::warn!(?partition, ?position, ?log_start, "retention removed records that were not read yet");
                self.follow_again(partition, log_start, tail);
            }
            TailEvent::Rewound { partition, position, end } => {
                self.metrics.tail_gaps.inc();
                tracing::error!(?partition, ?position, ?end, "Kafka lost acknowledged records of this partition");
                self.follow_again(partition, end, tail);
            }
            TailEvent::Gap { partition, why } => {
                self.metrics.tail_gaps.inc();
                tracing::warn!(?partition, why, "the tail lost its place");
                if let Some(&position) = self.positions.get(&partition) {
                    self.follow_again(partition, position, tail);
                }
            }
            TailEvent::Recreated { topic } => self.on_recreated(topic),
            TailEvent::PartitionsAdded { topic, partitions } => self.on_partitions_added(topic, partitions),
        }
    }

    fn follow_again(&mut self, partition: Partition, from: Offset, tail: &mut dyn Tail) {
        if self.interest.is_wanted(partition) {
            self.positions.insert(partition, from);
            tail.follow(partition, from);
        } else {
            self.positions.remove(&partition);
        }
    }

    /// A new kafka topic under the old name: everything in it is new.
    fn on_recreated(&mut self, topic: TopicIndex) {
        self.metrics.tail_gaps.inc();
        tracing::warn!(topic = self.topic_name(topic), "the kafka topic was deleted and created again");
        self.positions.retain(|partition, _| partition.topic != topic);
        for follower in self.followers.values_mut() {
            if let Some(lag) = &mut follower.lag {
                lag.forget_topic(topic);
            }
        }
        let wanted = self.interest.wanted_of(topic);
        self.collecting.from_log_start.extend(&wanted);
        self.collecting.partitions.extend(wanted);
        self.ask();
    }

    /// A partition that did not exist is read from its beginning; keys may have moved, so pruning ends.
    fn on_partitions_added(&mut self, topic: TopicIndex, partitions: u32) {
        tracing::warn!(topic = self.topic_name(topic), partitions, "the kafka topic has more partitions");
        let known = self.journal.partitions(topic).min(partitions);
        let before: Vec<Partition> = self.interest.wanted_of(topic);
        self.interest.grow(topic, partitions.max(known));
        self.interest.stop_pruning(topic);
        let added = self.interest.wanted_of(topic).into_iter().filter(|p| !self.positions.contains_key(p));
        let added: Vec<Partition> = added.collect();
        let highest_before = before.iter().map(|p| p.number).max();
        let new = added.iter().copied().filter(|p| highest_before.is_none_or(|highest| p.number > highest));
        self.collecting.from_log_start.extend(new);
        self.collecting.partitions.extend(added);
        self.ask();
    }

    fn on_batch(&mut self, batch: &Batch, tail: &mut dyn Tail) {
        self.metrics.tail_batches.inc();
        let topic = batch.partition.topic;
        let (mut read, mut wanted) = (0_u64, 0_u64);
        let mut mismatch = false;
        let hashed_over = self.interest.hashed_over(topic);
        for record in batch {
            read += 1;
            let Some(key) = record.key else { continue };
            mismatch |= hashed_over.is_some_and(|over| partition_of(key, over) != batch.partition.number);
            wanted += u64::from(self.on_record(batch.partition, key, &record));
        }
        self.metrics.tail_records_read.inc_by(read);
        self.metrics.tail_records_wanted.inc_by(wanted);
        self.advance(batch.partition, batch.next_offset);
        if mismatch {
            self.on_foreign_partitioner(topic);
        }
        self.drop_unwanted(batch.partition, tail);
    }

    /// True if anybody wants it.
    fn on_record(&mut self, partition: Partition, key: &[u8], record: &StoredRecord<'_>) -> bool {
        let mapping = Arc::clone(&self.mapping);
        let Some(topic) = mapping.to_mqtt(MappedTopic(partition.topic.0), key) else { return false };
        let found = &mut self.found;
        found.clear();
        self.trie.matches(&topic, |connection, entry| {
            let held_by = match entry.round.judge(partition, record.offset) {
                Verdict::Deliver => None,
                Verdict::Hold => Some(entry.round.number),
                Verdict::Skip => return,
            };
            found.push(Found { connection, subscription: entry.subscription, held_by });
        });
        if self.found.is_empty() {
            return false;
        }
        let Some(message) = self.decode(&topic, record) else { return false };
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|found| found.connection);
        for same in found.chunk_by(|a, b| a.connection == b.connection) {
            self.offer(partition, record.offset, &message, same);
        }
        self.found = found;
        true
    }

    /// `None` for what is no message: a tombstone, a fence.
    fn decode(&self, topic: &str, record: &StoredRecord<'_>) -> Option<Message> {
        match message::decode(topic, record.value(), record.headers()) {
            Decoded::Message { message, headers_ignored } => {
                if headers_ignored > 0 {
                    self.metrics.headers_ignored.inc_by(u64::from(headers_ignored));
                }
                Some(message)
            }
            Decoded::Tombstone | Decoded::Fence => None,
        }
    }

    /// One message to one connection, whatever number of its subscriptions match [MQTT-3.3.4-2].
    fn offer(&mut self, partition: Partition, offset: Offset, message: &Message, found: &[Found]) {
        let Some(connection) = found.first().map(|found| found.connection) else { return };
        let Some(follower) = self.followers.get(&connection) else { return };
        let own = message.publisher() == Some(follower.client_id.as_str());
        let started = found.iter().any(|found| found.held_by.is_none());
        let matching = found
            .iter()
            .filter(|found| found.held_by.is_none() == started && !(found.subscription.options.no_local && own));
        let Some(delivery) = delivery_of(message, matching.map(|found| found.subscription)) else { return };
        if started {
            self.push(connection, partition, offset, delivery);
            return;
        }
        let held = Held { connection, partition, offset, delivery };
        let round = found.first().and_then(|found| found.held_by);
        match &mut self.asked {
            Some(asked) if Some(asked.round.number) == round => asked.held.push(held),
            Some(_) | None => self.collecting.held.push(held),
        }
    }

    fn push(&mut self, connection: ConnectionId, partition: Partition, offset: Offset, delivery: Delivery) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let must_arrive = delivery.qos > QoS::AtMostOnce;
        if let Some(lag) = &mut follower.lag {
            if must_arrive {
                lag.missed(partition, offset);
            } else {
                self.metrics.publishes_dropped.inc(DropReason::QueueFull);
            }
            return;
        }
        match follower.mailbox.push_delivery(delivery) {
            (Pushed::Taken, waker) => self.wakers.extend(waker),
            (Pushed::Gone, _) => {}
            (Pushed::Full, _) if must_arrive => {
                self.metrics.lagging.inc();
                let open = self.asked.iter().chain([&self.collecting]).map(|open| &open.round);
                self.starting.iter().chain(open).for_each(|round| round.keep_starts());
                follower.lag = Some(Box::new(Lag::since(partition, offset)));
                if follower.mailbox.want_room() {
                    self.catch_up(connection);
                }
            }
            (Pushed::Full, _) => self.metrics.publishes_dropped.inc(DropReason::QueueFull),
        }
    }

    fn advance(&mut self, partition: Partition, next: Offset) {
        if let Some(position) = self.positions.get_mut(&partition) {
            *position = next.max(*position);
            let positions = &self.positions;
            self.starting.retain(|round| !round.try_pass(positions));
        }
    }

    fn on_foreign_partitioner(&mut self, topic: TopicIndex) {
        if !self.interest.stop_pruning(topic) {
            return;
        }
        self.metrics.foreign_partitioner.inc();
        tracing::warn!(
            topic = self.topic_name(topic),
            "a producer puts keys into other partitions than murmur2 does: all partitions are read from now on"
        );
        let added = self.interest.wanted_of(topic).into_iter().filter(|p| !self.positions.contains_key(p));
        self.collecting.partitions.extend(added);
        self.ask();
    }

    fn count_lost(&self, records: i64) {
        self.metrics.records_lost.inc_by(u64::try_from(records).unwrap_or(0));
    }

    fn topic_name(&self, topic: TopicIndex) -> &str {
        self.mapping.kafka_topics().get(usize::from(topic.0)).map_or("?", String::as_str)
    }

    // ---- what connections want

    fn on_command(&mut self, command: Command, tail: &mut dyn Tail) {
        match command {
            Command::Follow { connection, client_id, mailbox, packet_id, filters } => {
                let follower = Follower { client_id, mailbox, filters: Vec::new(), lag: None };
                self.followers.entry(connection).or_insert(follower);
                for follow in filters {
                    self.subscribe(connection, follow);
                }
                self.collecting.waiting.push((connection, packet_id));
                self.ask();
            }
            Command::Unfollow { connection, packet_id, filters } => {
                for filter in &filters {
                    self.unsubscribe(connection, filter, tail);
                }
                if let Some(follower) = self.followers.get(&connection) {
                    follower.mailbox.post(Notice::Unfollowed(packet_id));
                }
            }
            Command::Gone(connection) => {
                let filters = self.followers.get(&connection).map(|f| f.filters.clone()).unwrap_or_default();
                for filter in &filters {
                    self.unsubscribe(connection, filter, tail);
                }
                if self.followers.remove(&connection).is_some_and(|follower| follower.lag.is_some()) {
                    self.metrics.lagging.dec();
                }
            }
            Command::Room(connection) => self.catch_up(connection),
        }
    }

    fn subscribe(&mut self, connection: ConnectionId, follow: Follow) {
        let Follow { filter, subscription, is_new: _ } = follow;
        let wants = self.interest.wants_of(&self.mapping, &filter);
        let entry = Entry { subscription, round: Arc::clone(&self.collecting.round) };
        let before = self.trie.insert(&filter, connection, entry);
        if let Some(before) = before {
            // A subscription that is replaced goes on without a gap [MQTT-3.8.4-3].
            self.trie.insert(&filter, connection, Entry { subscription, round: before.round });
            return;
        }
        for &want in &wants {
            self.interest.add(want);
            self.collecting.partitions.extend(self.interest.partitions_of(want));
        }
        self.metrics.subscriptions.inc();
        if let Some(follower) = self.followers.get_mut(&connection) {
            if follower.lag.is_some() {
                self.collecting.round.keep_starts();
            }
            let place = follower.filters.binary_search(&filter).unwrap_or_else(|place| place);
            follower.filters.insert(place, filter);
        }
    }

    fn unsubscribe(&mut self, connection: ConnectionId, filter: &TopicFilter, tail: &mut dyn Tail) {
        if self.trie.remove(filter, connection).is_none() {
            return;
        }
        self.metrics.subscriptions.dec();
        if let Some(follower) = self.followers.get_mut(&connection)
            && let Ok(place) = follower.filters.binary_search(filter)
        {
            follower.filters.remove(place);
        }
        for want in self.interest.wants_of(&self.mapping, filter) {
            self.interest.remove(want);
            for partition in self.interest.partitions_of(want) {
                self.drop_unwanted(partition, tail);
            }
        }
    }

    /// A node without subscribers reads nothing.
    fn drop_unwanted(&mut self, partition: Partition, tail: &mut dyn Tail) {
        if !self.interest.is_wanted(partition) && self.positions.remove(&partition).is_some() {
            tail.unfollow(partition);
        }
    }
}

/// The highest QoS of the matching subscriptions, all their identifiers; `None` if there is none.
fn delivery_of(message: &Message, matching: impl Iterator<Item = Subscription>) -> Option<Delivery> {
    let mut granted = None;
    let mut retain = false;
    let mut subscription_ids: SmallVec<[u32; 1]> = SmallVec::new();
    for subscription in matching {
        granted = granted.max(Some(subscription.options.qos));
        retain |= subscription.options.retain_as_published && message.retain();
        subscription_ids.extend(subscription.id);
    }
    granted.map(|granted| Delivery {
        message: message.clone(),
        qos: granted.min(message.qos()),
        retain,
        subscription_ids,
        origin: None,
        tick: 0,
    })
}
