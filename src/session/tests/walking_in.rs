//! Random walks: one client publishes with QoS 2 while its connections break, nodes die and everything is late.
//!
//! The log, the session's records, the marks `W.tokens` and the fence are as in the model `qos2`; the sessions are the
//! real ones. Every message must be in the log at most once, and exactly once when the client has its PUBCOMP.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const OPERATIONS: usize = 6;
const CONNECTIONS: usize = 5;
const IDS: u16 = 2;
const TOPICS: [&str; 2] = ["a", "b"];

/// A generator of small numbers: the same seed walks the same way.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }

    pub(super) fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }
}

/// What the client knows of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Publish,
    PubRel,
}

#[derive(Debug, Default)]
struct Client {
    /// By packet id: which operation, and how far it is.
    open: BTreeMap<u16, (usize, Sent)>,
    next: usize,
    complete: Vec<usize>,
}

/// An append on its way to the log.
#[derive(Clone, Copy, Debug)]
struct Flying {
    sequence: u64,
    token: Token,
    operation: usize,
    /// Its session was told that the outcome is unknown.
    given_up: bool,
}

/// One connection on a node of its own.
struct Connection {
    session: Session,
    nonce: Nonce,
    parting: Option<Parting>,
    appends: Vec<Flying>,
    /// Which operation an append is, by packet id.
    operations: BTreeMap<u16, usize>,
    records: VecDeque<(u64, Inbound)>,
    look_ups: VecDeque<(u64, String, Vec<Unresolved>)>,
    fenced: bool,
    settled: bool,
    tick: u32,
    /// End of the log when this tick began.
    sampled: usize,
    /// `W.tokens`.
    mark: usize,
}

struct World {
    now: Instant,
    dice: Dice,
    client: Client,
    /// Packets to the last connection.
    wire: VecDeque<Packet<'static>>,
    connections: Vec<Connection>,
    /// The last connection's socket is there.
    connected: bool,
    log: Vec<(Token, usize)>,
    /// The state of the highest nonce that wrote one.
    state: Option<(Nonce, Inbound)>,
    story: Vec<String>,
}

fn nonce(index: usize) -> Nonce {
    Nonce([u8::try_from(index + 1).unwrap(); 16])
}

fn place_of(topic: &str) -> Place {
    Place { topic: 1, partition: u32::try_from(TOPICS.iter().position(|known| *known == topic).unwrap()).unwrap() }
}

fn topic_of(operation: usize) -> &'static str {
    TOPICS[operation / 2 % TOPICS.len()]
}

fn publish_of(packet_id: u16, operation: usize, dup: bool) -> Packet<'static> {
    let Packet::Publish(plain) = publish(topic_of(operation), qos2(packet_id)) else { unreachable!() };
    Packet::Publish(Publish { dup, ..plain })
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            now: epoch(),
            dice: Dice::new(seed),
            client: Client::default(),
            wire: VecDeque::new(),
            connections: Vec::new(),
            connected: false,
            log: Vec::new(),
            state: None,
            story: Vec::new(),
        }
    }

    fn note(&mut self, what: String) {
        self.story.push(what);
    }

    /// The client connects to a new node, which claims the session, and sends everything again.
    fn connect(&mut self) {
        self.break_connection();
        let index = self.connections.len();
        self.note(format!("connects to {index}, log {}, state {:?}", self.log.len(), self.state));
        let version = if self.dice.chance(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let mut session = Session::new(Arc::new(Settings::default()), self.now, 7);
        let mut effects = Effects::default();
        let asked = Packet::Connect(Box::new(durable_connect(version)));
        session.handle(self.now, Input::Packet(asked), &mut effects);
        let inherited = self.state.take();
        let present = inherited.is_some();
        let incarnation = Incarnation([0; 16]);
        let inbound = inherited.map(|(former, inbound)| succeed(inbound, former, incarnation)).unwrap_or_default();
        // Its own set is read back before CONNACK.
        self.state = Some((nonce(index), inbound.clone()));
        let state = Box::new(SessionState { expiry_s: 60, inbound, ..SessionState::default() });
        drain(effects);
        let settled = index == 0;
        let grant = Grant { nonce: nonce(index), session_present: present, state, settled };
        self.connections.push(Connection {
            session,
            nonce: nonce(index),
            parting: None,
            appends: vec![],
            operations: BTreeMap::new(),
            records: VecDeque::new(),
            look_ups: VecDeque::new(),
            fenced: false,
            settled,
            tick: 0,
            sampled: self.log.len(),
            mark: 0,
        });
        self.connected = true;
        self.wire = self
            .client
            .open
            .iter()
            .map(|(&packet_id, &(operation, sent))| match sent {
                Sent::Publish => publish_of(packet_id, operation, true),
                Sent::PubRel => pubrel(packet_id),
            })
            .collect();
        self.input(index, Input::Granted(Box::new(grant)));
    }

    fn break_connection(&mut self) {
        self.connected = false;
        self.wire.clear();
    }

    fn input(&mut self, index: usize, input: Input<'_>) {
        let mut effects = Effects::default();
        let operation = match &input {
            Input::Packet(Packet::Publish(publish)) => {
                let packet_id = publish.delivery.packet_id().unwrap().get();
                self.client.open.get(&packet_id).map(|&(operation, _)| (packet_id, operation))
            }
            _ => None,
        };
        self.connections[index].operations.extend(operation);
        self.connections[index].session.handle(self.now, input, &mut effects);
        for effect in drain(effects) {
            self.perform(index, effect);
        }
    }

    fn perform(&mut self, index: usize, effect: Effect) {
        let last = index + 1 == self.connections.len() && self.connected;
        let connection = &mut self.connections[index];
        match effect {
            Effect::Send(Outgoing::PubRec { packet_id, .. }) if last => {
                if let Some((_, sent)) = self.client.open.get_mut(&packet_id.get()) {
                    *sent = Sent::PubRel;
                }
                self.wire.push_back(pubrel(packet_id.get()));
            }
            Effect::Send(Outgoing::PubComp { packet_id, .. }) if last => {
                if let Some(&(operation, Sent::PubRel)) = self.client.open.get(&packet_id.get()) {
                    self.client.open.remove(&packet_id.get());
                    self.client.complete.push(operation);
                }
            }
            Effect::Append { sequence: Some(sequence), token: Some(token), .. }
            | Effect::AppendKept { sequence, token: Some(token), .. } => {
                let operation = connection.operations[&token.packet_id];
                connection.appends.push(Flying { sequence, token, operation, given_up: false });
            }
            Effect::Persist { sequence, part: Part::Inbound(inbound) } => {
                connection.records.push_back((sequence, inbound));
            }
            Effect::LookUp { sequence, topic, unresolved } => {
                connection.look_ups.push_back((sequence, topic.to_string(), unresolved));
            }
            Effect::Close(_) => {
                connection.parting = connection.session.take_parting().map(|parting| *parting);
                if last {
                    self.break_connection();
                }
            }
            _ => {}
        }
    }

    fn is_owner(&self, index: usize) -> bool {
        index + 1 == self.connections.len()
    }

    fn client_step(&mut self) {
        if !self.connected {
            return;
        }
        if self.dice.chance(2)
            && self.client.next < OPERATIONS
            && let Some(packet_id) = (1..=IDS).find(|packet_id| !self.client.open.contains_key(packet_id))
        {
            let operation = self.client.next;
            self.client.next += 1;
            self.client.open.insert(packet_id, (operation, Sent::Publish));
            self.wire.push_back(publish_of(packet_id, operation, false));
        } else if let Some(packet) = self.wire.pop_front() {
            let index = self.connections.len() - 1;
            self.note(format!("{index} reads {packet:?}"));
            self.input(index, Input::Packet(packet));
        }
    }

    /// An append lands, is refused by the fence, or its outcome gets lost.
    fn append_step(&mut self, index: usize) {
        let count = self.connections[index].appends.len();
        if count == 0 {
            return;
        }
        let which = self.dice.roll(count);
        let flying = self.connections[index].appends[which];
        if !flying.given_up && self.dice.chance(8) {
            self.connections[index].appends[which].given_up = true;
            self.note(format!("{index} loses sight of {:?}", flying.token));
            self.outcome(index, flying.sequence, AppendOutcome::Unknown);
            return;
        }
        self.connections[index].appends.swap_remove(which);
        self.note(format!("{:?} of {index} lands", flying.token));
        self.log.push((flying.token, flying.operation));
        if !flying.given_up {
            self.outcome(index, flying.sequence, AppendOutcome::Written);
        }
    }

    fn outcome(&mut self, index: usize, sequence: u64, outcome: AppendOutcome) {
        match &mut self.connections[index].parting {
            Some(parting) => parting.on_appended(sequence, outcome),
            None => self.input(index, Input::Appended { sequence, outcome }),
        }
    }

    fn record_step(&mut self, index: usize) {
        let Some((sequence, inbound)) = self.connections[index].records.pop_front() else { return };
        let own = self.connections[index].nonce;
        // F3: what a lower nonce writes later counts for nobody.
        if self.is_owner(index) {
            self.note(format!("{index} records {inbound:?}"));
            self.state = Some((own, inbound));
            if self.connections[index].parting.is_none() {
                self.input(index, Input::Persisted(sequence));
            }
        }
    }

    /// Q5, with the real session's answer.
    fn tick_step(&mut self, index: usize) {
        let log_end = self.log.len();
        let connection = &mut self.connections[index];
        if connection.fenced || connection.parting.is_some() {
            return;
        }
        let oldest = connection.session.oldest_token_tick();
        if connection.settled && oldest.is_none_or(|tick| tick >= connection.tick) {
            connection.mark = connection.sampled;
        }
        connection.tick += 1;
        connection.sampled = log_end;
        connection.session.set_tick(connection.tick);
        self.input(index, Input::Tick);
    }

    /// A superseded node hears of it, or dies.
    fn old_step(&mut self, index: usize) {
        if self.is_owner(index) || self.connections[index].parting.is_some() || self.connections[index].fenced {
            return;
        }
        self.note(format!("{index} hears that it was superseded"));
        self.input(index, Input::TakenOver);
    }

    /// Every lower nonce is final or fenced.
    fn settle_step(&mut self) {
        let last = self.connections.len() - 1;
        if self.connections[last].settled {
            return;
        }
        let mut ended = Vec::new();
        for index in 0..last {
            let dies = self.dice.chance(3);
            let connection = &mut self.connections[index];
            let is_final = connection.parting.as_ref().is_some_and(Parting::is_final) && connection.settled;
            if connection.fenced || !is_final {
                if !(connection.fenced || dies) {
                    return;
                }
                connection.fenced = true;
                connection.appends.clear();
                connection.records.clear();
                ended.push((connection.nonce, None));
            } else {
                let inbound = connection.parting.as_ref().map(|parting| parting.state.inbound.clone());
                ended.push((connection.nonce, inbound));
            }
        }
        self.note(format!("{last} is settled: {ended:?}"));
        self.connections[last].settled = true;
        self.input(last, Input::Settled(ended));
    }

    fn look_up_step(&mut self, index: usize) {
        let Some((sequence, topic, unresolved)) = self.connections[index].look_ups.pop_front() else { return };
        let place = place_of(&topic);
        let from = |token: Token| {
            let former = self.connections.iter().find(|connection| connection.nonce == token.nonce);
            former.map_or(0, |connection| connection.mark)
        };
        let found = self
            .log
            .iter()
            .enumerate()
            .filter(|&(at, &(token, operation))| {
                unresolved.iter().any(|entry| entry.nonce == token.nonce)
                    && place_of(topic_of(operation)) == place
                    && at >= from(token)
            })
            .map(|(_, &(token, _))| token)
            .collect();
        self.note(format!("{index} looked in {topic}: {found:?}"));
        self.input(index, Input::LookedUp { sequence, place, found });
    }

    fn step(&mut self) {
        let some = self.dice.roll(self.connections.len());
        let last = self.connections.len() - 1;
        match self.dice.roll(16) {
            0 if self.connections.len() < CONNECTIONS && self.dice.chance(4) => self.connect(),
            0 if self.dice.chance(4) => {
                self.note(format!("the socket of {last} ends"));
                self.break_connection();
                self.input(last, Input::SocketClosed);
            }
            0 | 1 => self.tick_step(some),
            2 => self.old_step(some),
            3 => self.settle_step(),
            4 | 5 => self.look_up_step(last),
            6..=8 => self.append_step(some),
            9..=11 => self.record_step(some),
            _ => self.client_step(),
        }
    }

    fn check(&self, seed: u64) {
        let tell = || self.story.join("\n");
        for operation in 0..OPERATIONS {
            let copies = self.log.iter().filter(|(_, logged)| *logged == operation).count();
            assert!(copies <= 1, "seed {seed}: operation {operation} is there {copies} times\n{}", tell());
            let is_lost = copies == 0 && self.client.complete.contains(&operation);
            assert!(!is_lost, "seed {seed}: operation {operation} is lost\n{}", tell());
        }
    }

    /// No more trouble: everything that is under way arrives.
    fn quiet_down(&mut self, seed: u64) {
        for _ in 0..2_000 {
            if !self.connected {
                self.connect();
            }
            for index in 0..self.connections.len() {
                self.old_step(index);
                self.record_step(index);
                self.look_up_step(index);
            }
            self.append_step(self.connections.len() - 1);
            self.settle_step();
            self.client_step();
            self.check(seed);
            if self.client.complete.len() == OPERATIONS {
                return;
            }
        }
        panic!("seed {seed}: stuck with {:?}\n{}", self.client, self.story.join("\n"));
    }
}

#[test]
fn a_message_is_in_the_log_exactly_once_whatever_happens() {
    for seed in 1..=1_500 {
        let mut world = World::new(seed);
        world.connect();
        for _ in 0..400 {
            world.step();
            world.check(seed);
        }
        world.quiet_down(seed);
    }
}
