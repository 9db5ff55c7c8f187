//! The actor's decisions on a memory journal: who gets what, and what its session's position is then.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use super::commands::{Command, Subscriber};
use super::*;
use crate::journal::memory::{FaultPlan, ForeignWrite, Limits, MemoryJournal, SharedLog};
use crate::journal::{AckGroup, AckSink, Journal, TopicSpec};
use crate::ledger::ids::{Origin, topic_number};
use crate::ledger::rules::Rules;
use crate::ledger::state::{Position, SessionState};
use crate::message::RecordRef;
use crate::mqtt::packet::{QoS, SubscribeOptions};
use crate::mqtt::{ClientId, PacketId, TopicFilter};
use crate::node::mailbox::{Mailbox, MailboxLimits, NO_TICK, Notice};
use crate::route::partition::partition_of;
use crate::session::{Delivery, Follow, PartCause};

mod positions;
mod sharing;

const TOPIC: &str = "t";
const RECENT: usize = 1 << 20;

struct NoAcks;

impl AckSink for NoAcks {
    fn on_acks(&self, _group: &AckGroup<'_>) {}
    fn flush(&self) {}
}

/// What the actor told about sessions.
#[derive(Debug, Default)]
struct Told {
    parted: Mutex<Vec<(ConnectionId, Box<Parting>)>>,
    watermarks: Mutex<Vec<WatermarkRound>>,
}

impl Reports for Told {
    fn parted(&self, connection: ConnectionId, parting: Box<Parting>) {
        self.parted.lock().unwrap_or_else(PoisonError::into_inner).push((connection, parting));
    }

    fn watermark(&self, round: WatermarkRound) {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).push(round);
    }
}

/// The actor without its loop, with everything around it.
struct Stage {
    log: SharedLog,
    journal: Arc<MemoryJournal>,
    partitions: u32,
    fanout: Fanout,
    tail: Box<dyn Tail>,
    retained_tail: Box<dyn Tail>,
    answers: mpsc::Receiver<Answer>,
    told: Arc<Told>,
    connections: u64,
}

/// A subscriber.
struct Client {
    id: ConnectionId,
    mailbox: Arc<Mailbox>,
}

impl Stage {
    fn new(partitions: u32, recent_bytes_max: usize) -> Self {
        let log = SharedLog::new(FaultPlan::default(), Limits::default());
        let spec = TopicSpec { name: TOPIC.into(), partitions, replication_factor: None, configs: vec![] };
        log.with(|log| log.create(&[spec])).unwrap();
        let journal = Arc::new(MemoryJournal::open(&log, vec![TOPIC.into()], Arc::new(NoAcks)));
        let told = Arc::new(Told::default());
        let (answers_to, answers) = mpsc::channel(QUESTIONS_MAX);
        let options = Options {
            journal: Arc::clone(&journal) as SharedJournal,
            mapping: Arc::new(Mapping::new(&[], TOPIC).unwrap()),
            metrics: Arc::new(Metrics::new("n").unwrap()),
            isolation: Isolation::ReadCommitted,
            trie_seed: 1,
            reports: Arc::clone(&told) as Arc<dyn Reports>,
            recent_bytes_max,
            watermark_interval_ms: 1,
            rules: Rules::ALL,
            retained: None,
        };
        let tail = journal.tail(Isolation::ReadCommitted);
        let retained_tail = journal.tail(Isolation::ReadUncommitted);
        let fanout = Fanout::new(options, answers_to);
        Self { log, journal, partitions, fanout, tail, retained_tail, answers, told, connections: 0 }
    }

    /// Lets everything happen that can. Time stands still but for what nothing else is left to do before.
    async fn settle(&mut self) {
        self.settle_with(true).await;
    }

    /// The same, but those who lag read nothing.
    async fn settle_without_sweeps(&mut self) {
        self.settle_with(false).await;
    }

    async fn settle_with(&mut self, sweeps: bool) {
        loop {
            while sweeps && self.fanout.sweeps.has_work() {
                self.fanout.catch_up();
            }
            tokio::select! {
                biased;
                event = self.tail.next() => self.fanout.on_tail(event, &mut *self.tail),
                Some(answer) = self.answers.recv() => self.fanout.on_answer(answer, &mut *self.tail, &mut *self.retained_tail),
                () = tokio::time::sleep(Duration::from_secs(2)) => return,
            }
        }
    }

    /// A record whose key and value are `topic`; its offset.
    fn write(&self, topic: &str) -> i64 {
        let record =
            RecordRef { key: Some(topic.as_bytes()), value: Some(topic.as_bytes()), headers: &[], timestamp_ms: 0 };
        let partition = partition_of(topic.as_bytes(), self.partitions);
        self.log.with(|log| log.write_foreign(9, TOPIC, partition, &[record], ForeignWrite::Plain)).unwrap().0
    }

    fn write_many(&self, topic: &str, count: usize) {
        (0..count).for_each(|_| {
            self.write(topic);
        });
    }

    fn place(&self, partition: u32) -> Place {
        Place { topic: topic_number(self.journal.topic_id(TopicIndex(0)).unwrap()), partition }
    }

    fn client_with(&mut self, limits: MailboxLimits) -> Client {
        self.connections += 1;
        Client { id: ConnectionId::from_u64(self.connections), mailbox: Arc::new(Mailbox::new(limits)) }
    }

    fn client(&mut self) -> Client {
        self.client_with(MailboxLimits::default())
    }

    fn command(&mut self, command: Command) {
        self.fanout.on_command(command, &mut *self.tail);
    }

    fn follow(&mut self, client: &Client, filter: &str) {
        let command =
            Command::Follow { subscriber: client.subscriber(), packet_id: id(1), filters: follows(&[filter]) };
        self.command(command);
    }

    fn resume(&mut self, client: &Client, filters: &[&str], from: &[(Place, i64)]) {
        self.resume_with(client, follows(filters), from);
    }

    fn resume_with(&mut self, client: &Client, filters: Vec<Follow>, from: &[(Place, i64)]) {
        let command = Command::Resume { subscriber: client.subscriber(), filters, from: from.to_vec() };
        self.command(command);
    }

    fn gone(&mut self, client: &Client, unacked: &[(u16, Origin)]) -> Position {
        client.mailbox.close();
        let unacked = unacked.iter().map(|&(number, origin)| (id(number), origin)).collect();
        let parting = Parting {
            cause: PartCause::Broken,
            state: SessionState::default(),
            unacked,
            outstanding: vec![],
            unknown: 0,
        };
        self.command(Command::Gone { connection: client.id, parting: Some(Box::new(parting)) });
        let (who, parting) = self.told.parted.lock().unwrap().pop().unwrap();
        assert_eq!(who, client.id);
        parting.state.position
    }

    /// Takes everything out for a client and tells the actor of the room.
    async fn take_all(&mut self, client: &Client) -> Vec<Delivery> {
        let (mut all, mut told) = (Vec::new(), false);
        loop {
            let (delivery, room) = client.mailbox.pop_delivery();
            if room {
                self.command(Command::Room(client.id));
            }
            told |= room;
            match delivery {
                Some(delivery) => all.push(delivery),
                None if std::mem::take(&mut told) => self.settle().await,
                None => return all,
            }
        }
    }

    async fn offsets(&mut self, client: &Client) -> Vec<i64> {
        offsets(&self.take_all(client).await)
    }

    fn tick(&mut self) {
        self.fanout.on_tick();
    }

    fn round(&self) -> Option<WatermarkRound> {
        self.told.watermarks.lock().unwrap().pop()
    }

    fn lagging(&self) -> i64 {
        self.fanout.metrics.lagging.get()
    }
}

impl Client {
    fn subscriber(&self) -> Subscriber {
        let client_id = ClientId::parse(&format!("c{}", self.id.as_u64()), 128).unwrap();
        Subscriber { connection: self.id, client_id, mailbox: Arc::clone(&self.mailbox), durable: true }
    }

    fn notices(&self) -> Vec<Notice> {
        self.mailbox.take(Waker::noop()).notices
    }

    /// Everything was acknowledged.
    fn ack_all(&self) {
        self.mailbox.set_progress(NO_TICK, NO_TICK);
    }

    #[track_caller]
    fn expect_followed(&self) -> Vec<(Place, i64)> {
        match self.notices().as_slice() {
            [Notice::Followed { from, .. }] => from.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_positions(&self) -> (bool, Vec<(Place, i64)>) {
        match self.notices().as_slice() {
            [Notice::Positions { following, from }] => (*following, from.clone()),
            other => panic!("{other:?}"),
        }
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn follows(filters: &[&str]) -> Vec<Follow> {
    follows_with(QoS::AtLeastOnce, filters)
}

fn follows_with(qos: QoS, filters: &[&str]) -> Vec<Follow> {
    let options = SubscribeOptions { qos, ..SubscribeOptions::default() };
    let follow = |filter: &&str| Follow {
        filter: TopicFilter::parse(filter).unwrap(),
        subscription: Subscription { options, id: None },
        is_new: true,
        starts: Vec::new(),
    };
    filters.iter().map(follow).collect()
}

fn offsets(deliveries: &[Delivery]) -> Vec<i64> {
    deliveries.iter().map(|delivery| delivery.origin.unwrap().offset).collect()
}
