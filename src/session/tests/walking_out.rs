//! Random walks: one client with a subscription of QoS 2 while its connections break, nodes die and everything is late.
//!
//! The node around the real sessions is as small as it can be: it hands over what is in the log, writes the session's
//! records and its watermark `W` in one order (W1 to W4), and fills in positions. Every message must reach the client's
//! application, those with QoS 2 exactly once, each QoS in the order of the log.

use std::collections::{BTreeSet, VecDeque};

use super::walking_in::Dice;
use super::*;

const MESSAGES: i64 = 30;
const CONNECTIONS: usize = 6;

enum Record {
    Part(u64, Part),
    Set(Box<SessionState>),
    Watermark(i64),
}

/// One connection on a node of its own.
struct Connection {
    session: Session,
    /// The first offset that was not put into the mailbox.
    next: i64,
    mailbox: VecDeque<Delivery>,
    records: VecDeque<Record>,
    attached: bool,
    tick: u32,
    /// [`Connection::next`] when this tick began.
    sampled: i64,
    /// The last watermark that was written.
    done: i64,
    over: bool,
}

#[derive(Default)]
struct Client {
    /// Ids whose PUBREL did not come yet.
    half: BTreeSet<u16>,
    /// Offsets in the order in which the application got them.
    got: Vec<i64>,
}

struct World {
    now: Instant,
    dice: Dice,
    client: Client,
    qos: Vec<QoS>,
    to_client: VecDeque<Outgoing>,
    to_node: VecDeque<Packet<'static>>,
    connection: Connection,
    connections: usize,
    /// The state of the highest nonce, and what its node's watermark says.
    state: SessionState,
    done: Option<i64>,
    story: Vec<String>,
}

fn puback(packet_id: u16) -> Packet<'static> {
    Packet::PubAck(ack(packet_id, ReasonCode::Success))
}

fn topic_at(offset: i64) -> String {
    format!("t/{offset}")
}

fn offset_of(delivery: &Delivery) -> i64 {
    delivery.message.topic().strip_prefix("t/").unwrap().parse().unwrap()
}

impl Connection {
    /// What the node believes the session has, but for what waits in the mailbox.
    fn from(&self) -> Vec<(Place, i64)> {
        let waits = self.mailbox.front().map(|first| first.origin.unwrap().offset);
        vec![(PLACE, waits.unwrap_or(self.next))]
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let qos = (0..MESSAGES).map(|_| if dice.chance(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce }).collect();
        let now = epoch();
        let filter = TopicFilter::parse("t/+").unwrap();
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        let state = SessionState {
            expiry_s: 60,
            subscriptions: vec![SubscriptionState { filter, options, id: None, starts: Vec::new() }],
            position: Position { following: false, from: vec![(PLACE, 0)], in_flight: vec![] },
            ..SessionState::default()
        };
        let mut world = Self {
            now,
            dice,
            client: Client::default(),
            qos,
            to_client: VecDeque::new(),
            to_node: VecDeque::new(),
            connection: Self::connection(now),
            connections: 0,
            state,
            done: None,
            story: vec![],
        };
        world.connect();
        world
    }

    fn connection(now: Instant) -> Connection {
        Connection {
            session: Session::new(Arc::new(Settings { deliver_window_max: 4, ..Settings::default() }), now, 7),
            next: 0,
            mailbox: VecDeque::new(),
            records: VecDeque::new(),
            attached: false,
            tick: 0,
            sampled: 0,
            done: 0,
            over: false,
        }
    }

    fn note(&mut self, what: String) {
        self.story.push(what);
    }

    /// The client connects to a new node, which claims the session. What the old one has not written is lost.
    fn connect(&mut self) {
        self.connections += 1;
        self.to_client.clear();
        self.to_node.clear();
        self.connection = Self::connection(self.now);
        let version = if self.dice.chance(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        self.input(Input::Packet(Packet::Connect(Box::new(durable_connect(version)))));
        if let (true, Some(done)) = (self.state.position.following, self.done.take()) {
            for (_, offset) in &mut self.state.position.from {
                *offset = done.max(*offset);
            }
        }
        self.done = None;
        self.state.position.following = false;
        self.note(format!("connects, state {:?} {:?}", self.state.position, self.state.outbound));
        let state = Box::new(self.state.clone());
        self.connection.done = self.state.position.from[0].1;
        self.input(Input::Granted(Box::new(Grant { nonce: NONCE, session_present: true, state, settled: true })));
    }

    fn input(&mut self, input: Input<'_>) {
        let mut effects = Effects::default();
        self.connection.session.handle(self.now, input, &mut effects);
        for effect in drain(effects) {
            match effect {
                Effect::Send(outgoing) => self.to_client.push_back(outgoing),
                Effect::Persist { sequence, part } => self.connection.records.push_back(Record::Part(sequence, part)),
                Effect::Resume { from, .. } => {
                    self.connection.next = from[0].1;
                    self.connection.sampled = from[0].1;
                }
                _ => {}
            }
        }
    }

    /// The node sees the connection end.
    fn end(&mut self) {
        if self.connection.over {
            return;
        }
        self.input(Input::SocketClosed);
        self.to_client.clear();
        self.to_node.clear();
        let Parting { mut state, unacked, .. } = *self.connection.session.take_parting().unwrap();
        let mut from = self.connection.from();
        for (_, origin) in &unacked {
            from[0].1 = origin.offset.min(from[0].1);
        }
        state.position = Position { following: false, from, in_flight: unacked };
        self.note(format!("ends with {:?} {:?}", state.position, state.outbound));
        self.connection.records.push_back(Record::Set(Box::new(state)));
        self.connection.over = true;
    }

    fn record_step(&mut self) {
        match self.connection.records.pop_front() {
            Some(Record::Part(sequence, part)) => {
                self.note(format!("records {part:?}"));
                self.state.set_part(part);
                if !self.connection.over {
                    self.input(Input::Persisted(sequence));
                }
            }
            Some(Record::Set(state)) => self.state = *state,
            Some(Record::Watermark(done)) => {
                self.note(format!("records W {done}"));
                self.done = Some(done);
            }
            None => {}
        }
    }

    fn push_step(&mut self) {
        let offset = self.connection.next;
        if self.connection.over || offset >= MESSAGES {
            return;
        }
        let qos = self.qos[usize::try_from(offset).unwrap()];
        let message = message(&topic_at(offset), qos);
        let delivery = Delivery { origin: Some(at(offset)), tick: self.connection.tick, ..delivery(message, qos) };
        self.connection.mailbox.push_back(delivery);
        self.connection.next += 1;
    }

    fn deliver_step(&mut self) {
        if !self.connection.over
            && self.connection.session.wants_deliveries()
            && let Some(delivery) = self.connection.mailbox.pop_front()
        {
            self.input(Input::Deliver { delivery, wall_ms: WALL_MS });
        }
    }

    /// W of what was handed over before the last tick; who has not acknowledged that is left behind (W3).
    fn tick_step(&mut self) {
        let connection = &mut self.connection;
        if connection.over {
            return;
        }
        let in_mailbox = connection.mailbox.front().map(|first| first.tick);
        let oldest = connection.session.oldest_tick().into_iter().chain(in_mailbox).min();
        let is_late = oldest.is_some_and(|oldest| oldest < connection.tick);
        let (sampled, from) = (connection.sampled, connection.from());
        connection.tick += 1;
        connection.sampled = connection.next;
        if connection.attached && is_late {
            connection.attached = false;
            self.input(Input::Positions { following: false, from });
        } else if !connection.attached && !is_late {
            // W1: it has acknowledged at least the last W.
            connection.attached = true;
            self.input(Input::Positions { following: true, from });
        }
        self.connection.done = sampled.max(self.connection.done);
        self.connection.records.push_back(Record::Watermark(self.connection.done));
    }

    fn client_step(&mut self) {
        let Some(outgoing) = self.to_client.pop_front() else { return };
        match outgoing {
            Outgoing::Publish { delivery, packet_id: Some(packet_id), dup, .. } => {
                let offset = offset_of(&delivery);
                self.note(format!(
                    "client gets {offset} {:?} as {packet_id}{}",
                    delivery.qos,
                    if dup { " dup" } else { "" }
                ));
                if delivery.qos == QoS::AtLeastOnce {
                    self.client.got.push(offset);
                    self.to_node.push_back(puback(packet_id.get()));
                } else {
                    // [MQTT-4.3.3-10], with the client as the receiver.
                    if self.client.half.insert(packet_id.get()) {
                        self.client.got.push(offset);
                    }
                    self.to_node.push_back(pubrec(packet_id.get()));
                }
            }
            Outgoing::PubRel { packet_id, .. } => {
                self.note(format!("client gets PUBREL {packet_id}"));
                self.client.half.remove(&packet_id.get());
                self.to_node.push_back(pubcomp(packet_id.get()));
            }
            _ => {}
        }
    }

    fn read_step(&mut self) {
        if !self.connection.over
            && let Some(packet) = self.to_node.pop_front()
        {
            self.input(Input::Packet(packet));
        }
    }

    fn step(&mut self) {
        match self.dice.roll(24) {
            0 if self.connections < CONNECTIONS && self.dice.chance(5) => self.connect(),
            0 if self.dice.chance(4) => self.end(),
            0..=2 => self.tick_step(),
            3..=7 => self.record_step(),
            8..=11 => self.push_step(),
            12..=15 => self.deliver_step(),
            16..=19 => self.client_step(),
            _ => self.read_step(),
        }
    }

    fn check(&self, seed: u64) {
        let firsts = |qos: QoS| {
            let mut known = BTreeSet::new();
            let of_qos = |offset: &&i64| self.qos[usize::try_from(**offset).unwrap()] == qos;
            self.client.got.iter().filter(of_qos).filter(|offset| known.insert(**offset)).copied().collect::<Vec<_>>()
        };
        let exactly: Vec<_> = firsts(QoS::ExactlyOnce);
        let twice = self
            .client
            .got
            .iter()
            .filter(|offset| self.qos[usize::try_from(**offset).unwrap()] == QoS::ExactlyOnce)
            .count()
            > exactly.len();
        let tell = || self.story.join("\n");
        assert!(!twice, "seed {seed}: twice: {:?}\n{}", self.client.got, tell());
        assert!(exactly.is_sorted(), "seed {seed}: out of order: {exactly:?}\n{}", tell());
        let least = firsts(QoS::AtLeastOnce);
        assert!(least.is_sorted(), "seed {seed}: out of order: {least:?}\n{}", tell());
    }

    fn quiet_down(&mut self, seed: u64) {
        for _ in 0..2_000 {
            if self.connection.over {
                self.record_step();
                if self.connection.records.is_empty() {
                    self.connect();
                }
            }
            self.push_step();
            self.record_step();
            self.deliver_step();
            self.client_step();
            self.read_step();
        }
        self.check(seed);
        let got: BTreeSet<_> = self.client.got.iter().copied().collect();
        let lost: Vec<_> = (0..MESSAGES).filter(|offset| !got.contains(offset)).collect();
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}\n{}", self.story.join("\n"));
    }
}

#[test]
fn a_message_reaches_the_application_whatever_happens_and_with_qos_2_exactly_once() {
    for seed in 1..=500 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.quiet_down(seed);
    }
}
