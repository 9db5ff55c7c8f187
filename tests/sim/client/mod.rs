//! A client: a library's half of the protocol, driven by dice.

mod obeying;
pub(crate) mod orders;
pub(crate) mod state;
pub(crate) mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace::mqtt::head::Sender;
use millrace::mqtt::packet::{Packet, ProtocolVersion};
use millrace::mqtt::{ReasonCode, decode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::orders::{Order, Orders, Visit};
use self::state::{Owed, Request, State};
use self::wire::Wire;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{Answer, Asked, End, Event, Link, Message, Name, Will};
use crate::plan::{Features, Plan};

/// Publishes on their way at most; below the server's receive maximum.
const WINDOW: usize = 8;
/// An answer to CONNECT that has not come by then does not come.
const CONNACK_LIMIT: Duration = Duration::from_secs(10);
/// Packet id of the SUBSCRIBE on a connection that was superseded; no client comes to it otherwise.
const STRAY_ID: u16 = 60_000;
/// Longest pause between two pings when there is nothing else to do.
const DRAINING_PAUSE_MS: u64 = 2_000;
/// A socket that takes nothing for so long is dead.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

pub(crate) const TOPICS: [&str; 6] = ["a/1", "a/2", "b/1", "b/2/x", "c", "a/1/deep"];
const FILTERS: [&str; 11] = ["a/1", "a/2", "b/1", "b/2/x", "c", "a/1/deep", "a/+", "b/#", "+/1", "+/1/#", "#"];

/// What the clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Busy,
    /// Be connected, finish what was begun, begin nothing.
    Draining,
    /// As before, but end this connection and come back first.
    Returning,
}

/// How a client is, for whoever waits for the end of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Status {
    pub(crate) is_connected: bool,
    pub(crate) is_settled: bool,
}

/// How a client lives.
#[derive(Clone, Copy, Debug)]
struct Habits {
    version: ProtocolVersion,
    expiry_s: u32,
    keep_alive_s: u16,
    publishes: u64,
    subscribes: u64,
    leaves: u64,
    cuts: u64,
    naps: u64,
    /// Longest pause between two actions.
    pause_ms: u64,
    /// Sends its acknowledgements late.
    is_lazy: bool,
    /// Nor by and by.
    is_mute: bool,
    /// 0: says nothing about it.
    receive_max: u16,
    padding: u64,
    clean_start_permille: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "what a client is in the middle of, each by itself")]
pub(crate) struct Client {
    index: usize,
    cluster: Arc<Cluster>,
    features: Features,
    dice: Dice,
    habits: Habits,
    phase: watch::Receiver<Phase>,
    status: Arc<Mutex<Status>>,
    state: State,
    owed: Vec<Owed>,
    connections: u32,
    messages: u32,
    has_returned: bool,
    /// The session ends with the connection.
    is_fleeting: bool,
    /// The client has its half of a session.
    has_session: bool,
    must_start_clean: bool,
    /// In a scene the client does what it is told.
    orders: Option<Orders>,
    visit: Option<Visit>,
    /// It never comes back.
    is_retired: bool,
}

/// Why a connection is over.
type Over = End;

impl Client {
    pub(crate) fn new(
        index: usize,
        cluster: &Arc<Cluster>,
        plan: &Plan,
        mut dice: Dice,
        phase: watch::Receiver<Phase>,
        status: Arc<Mutex<Status>>,
        orders: Option<Orders>,
    ) -> Self {
        let mut habits = Habits::draw(plan, &mut dice);
        if orders.is_some() {
            habits.obey();
        }
        Self {
            index,
            cluster: Arc::clone(cluster),
            features: plan.features,
            dice,
            habits,
            phase,
            status,
            state: State::default(),
            owed: Vec::new(),
            connections: 0,
            messages: 0,
            has_returned: false,
            is_fleeting: false,
            has_session: false,
            must_start_clean: false,
            orders,
            visit: None,
            is_retired: false,
        }
    }

    /// Connects again and again, for ever.
    pub(crate) async fn live(mut self) {
        loop {
            self.await_orders().await;
            let node = match &self.visit {
                Some(visit) => visit.node,
                None => usize::try_from(self.dice.between(0, self.cluster.nodes() as u64 - 1)).unwrap(),
            };
            if let Some(stream) = self.cluster.connect(node) {
                let link = Link { client: self.index, connection: self.connections };
                self.connections += 1;
                let mut wire = Wire::new(stream, self.habits.version);
                let end = match self.serve(link, node, &mut wire).await {
                    Ok(never) => match never {},
                    Err(end) => end,
                };
                self.set_status(Status::default());
                self.cluster.record(Event::Ended { link, end });
                if std::mem::take(&mut self.is_fleeting) {
                    self.discard();
                }
                if end == End::LeftOpen {
                    let cluster = Arc::clone(&self.cluster);
                    millrace::ops::tasks::spawn("left open", stay_open(cluster, link, wire));
                }
            }
            let pause_ms = self.dice.between(1, if self.dice.clone().chance(200) { 3000 } else { 300 });
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn serve(&mut self, link: Link, node: usize, wire: &mut Wire) -> Result<std::convert::Infallible, Over> {
        self.owed.clear();
        let asked = self.ask(node);
        let is_fleeting = asked.expiry_s == 0;
        if asked.clean_start {
            self.discard();
        }
        let Habits { keep_alive_s, receive_max, .. } = self.habits;
        wire.connect(link, &format!("client-{}", self.index), keep_alive_s, receive_max, &asked);
        self.cluster.record(Event::Connecting { link, asked });
        flush(wire).await?;
        let session_present = match timeout(CONNACK_LIMIT, self.read_connack(wire)).await {
            Err(_) => return Err(End::GaveUp),
            Ok(None) => return Err(End::Closed(None)),
            Ok(Some(frame)) => self.on_connack(link, &frame)?,
        };
        self.is_fleeting = is_fleeting;
        if session_present && !self.has_session {
            // A session that the client knows nothing of [MQTT-3.2.2-4].
            self.must_start_clean = true;
            return Err(End::Cut);
        }
        (self.has_session, self.must_start_clean) = (true, false);
        self.visit = None;
        self.resume(link, wire, session_present).await?;
        let mut act_at = Instant::from_std(millrace::clock::now());
        loop {
            self.report();
            act_at = act_at.max(Instant::from_std(millrace::clock::now()));
            let pause_ms = if self.drains() { DRAINING_PAUSE_MS } else { self.habits.pause_ms };
            act_at += Duration::from_millis(self.dice.between(1, pause_ms));
            loop {
                tokio::select! {
                    biased;
                    frame = wire.read() => match frame {
                        Some(frame) => self.on_frame(link, &frame)?,
                        None => return Err(End::Closed(None)),
                    },
                    () = sleep_until(act_at) => break,
                }
                if !self.habits.is_lazy || self.drains() {
                    self.pay(wire).await?;
                }
                self.report();
            }
            if !self.habits.is_mute || self.drains() {
                self.pay(wire).await?;
            }
            self.act(link, wire).await?;
        }
    }

    fn discard(&mut self) {
        self.has_session = false;
        for name in self.state.discard() {
            self.cluster.record(Event::Abandoned { client: self.index, name });
        }
    }

    fn ask(&mut self, node: usize) -> Asked {
        let drains = self.drains();
        if let Some(Visit { node: _, clean_start, expiry_s, will, receive_max }) = self.visit.clone() {
            // What follows the scene goes on with the same session.
            (self.habits.expiry_s, self.habits.receive_max) = (expiry_s, receive_max);
            return Asked { node, clean_start: clean_start || self.must_start_clean, expiry_s, will };
        }
        let is_clean =
            self.habits.expiry_s == 0 && (self.habits.version != ProtocolVersion::V5 || self.dice.chance(900));
        let starts_clean = !drains && self.dice.chance(self.habits.clean_start_permille) || self.must_start_clean;
        // A 3.x client says with one bit that it starts clean and leaves nothing behind.
        let clean_start = is_clean || starts_clean;
        let is_bit = self.habits.version != ProtocolVersion::V5;
        let expiry_s = if clean_start && is_bit { 0 } else { self.habits.expiry_s };
        let will = (self.features.wills && self.dice.chance(600)).then(|| Will {
            topic: (*self.dice.pick(&TOPICS)).to_owned(),
            qos: self.qos(),
            retain: self.features.retained && self.dice.chance(200),
            delay_s: if self.habits.version == ProtocolVersion::V5 { *self.dice.pick(&[0, 0, 1, 5]) } else { 0 },
        });
        Asked { node, clean_start, expiry_s, will }
    }

    fn drains(&self) -> bool {
        *self.phase.borrow() != Phase::Busy
    }

    fn qos(&mut self) -> u8 {
        self.dice.weighted(&[(1, 0), (4, 1), (if self.features.qos2 { 4 } else { 0 }, 2)])
    }

    fn on_connack(&mut self, link: Link, frame: &[u8]) -> Result<bool, Over> {
        match decode::packet(frame, Some(self.habits.version), Sender::Server) {
            Ok(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success => {
                let session_present = connack.session_present;
                self.cluster.record(Event::Accepted { link, session_present });
                Ok(session_present)
            }
            Ok(Packet::ConnAck(connack)) => {
                self.cluster.record(Event::Refused { link, reason: connack.reason.as_u8() });
                Err(End::Closed(None))
            }
            Ok(other) => Err(self.broken(link, format!("instead of CONNACK: {other:?}"))),
            Err(error) => Err(self.broken(link, format!("{error}"))),
        }
    }

    fn broken(&self, link: Link, what: String) -> Over {
        self.cluster.record(Event::Broken { link, what });
        End::Cut
    }

    /// What a library does with what it had on its way.
    async fn resume(&mut self, link: Link, wire: &mut Wire, session_present: bool) -> Result<(), Over> {
        let resumed = self.state.on_accepted(session_present);
        for name in resumed.abandoned {
            self.cluster.record(Event::Abandoned { client: self.index, name });
        }
        for out in resumed.again {
            if out.is_released {
                wire.release(out.id);
            } else {
                wire.publish(out.id, &out.message, true, 0);
                self.cluster.record(Event::Sent { link, message: out.message, dup: true });
            }
        }
        for message in resumed.anew {
            self.publish(link, wire, message);
        }
        flush(wire).await
    }

    fn publish(&mut self, link: Link, wire: &mut Wire, message: Message) {
        let id = if message.qos == 0 { 0 } else { self.state.send(message.clone()) };
        let padding = usize::try_from(self.dice.between(0, self.habits.padding)).unwrap();
        wire.publish(id, &message, false, padding);
        self.cluster.record(Event::Sent { link, message, dup: false });
    }

    /// Sends the acknowledgements that are owed.
    async fn pay(&mut self, wire: &mut Wire) -> Result<(), Over> {
        for owed in std::mem::take(&mut self.owed) {
            if let Owed::Ack(id) = owed {
                self.state.on_puback_sent(id);
            }
            wire.owed(owed);
        }
        flush(wire).await
    }

    async fn act(&mut self, link: Link, wire: &mut Wire) -> Result<(), Over> {
        if *self.phase.borrow() == Phase::Returning && !std::mem::replace(&mut self.has_returned, true) {
            return Err(if self.dice.chance(500) { End::Cut } else { self.leave(wire).await });
        }
        if self.drains() {
            wire.ping();
            return flush(wire).await;
        }
        if self.orders.is_some() {
            return self.obey(link, wire).await;
        }
        let habits = self.habits;
        let action = self.dice.weighted(&[
            (habits.publishes, Action::Publish),
            (habits.subscribes, Action::Subscribe),
            (habits.subscribes / 3, Action::Unsubscribe),
            (habits.leaves, Action::Leave),
            (habits.cuts, Action::Cut),
            (habits.naps, Action::Nap),
            (5, Action::Ping),
        ]);
        match action {
            Action::Publish => {
                for _ in 0..self.dice.between(1, 3) {
                    if self.state.outgoing.len() < WINDOW {
                        let message = self.compose();
                        self.publish(link, wire, message);
                    }
                }
            }
            Action::Subscribe => self.subscribe(link, wire),
            Action::Unsubscribe => self.unsubscribe(link, wire),
            Action::Leave => return Err(self.leave(wire).await),
            Action::Cut => return Err(self.cut(link, wire).await),
            Action::Nap => sleep(Duration::from_millis(self.dice.between(100, 2000))).await,
            Action::Ping => wire.ping(),
        }
        flush(wire).await
    }

    fn compose(&mut self) -> Message {
        let retain = self.features.retained && self.dice.chance(250);
        let name = if retain && self.dice.chance(200) {
            Name::Clear
        } else {
            self.messages += 1;
            Name::Message { client: self.index, number: self.messages }
        };
        Message { name, topic: (*self.dice.pick(&TOPICS)).to_owned(), qos: self.qos(), retain }
    }

    fn subscribe(&mut self, link: Link, wire: &mut Wire) {
        if self.state.requests.len() >= 2 {
            return;
        }
        let mut filters = Vec::new();
        for _ in 0..self.dice.between(1, 2) {
            let filter = (*self.dice.pick(&FILTERS)).to_owned();
            if filters.iter().all(|(other, _)| *other != filter) {
                filters.push((filter, self.qos()));
            }
        }
        self.subscribe_to(link, wire, filters);
    }

    fn subscribe_to(&mut self, link: Link, wire: &mut Wire, filters: Vec<(String, u8)>) {
        let id = self.state.take_id();
        wire.subscribe(id, &filters);
        self.state.requests.insert(id, Request::Subscribe(filters.clone()));
        self.cluster.record(Event::Subscribing { link, filters });
    }

    fn unsubscribe(&mut self, link: Link, wire: &mut Wire) {
        if self.state.requests.len() >= 2 {
            return;
        }
        let filters = vec![(*self.dice.pick(&FILTERS)).to_owned()];
        self.unsubscribe_from(link, wire, filters);
    }

    fn unsubscribe_from(&mut self, link: Link, wire: &mut Wire, filters: Vec<String>) {
        let id = self.state.take_id();
        wire.unsubscribe(id, &filters);
        self.state.requests.insert(id, Request::Unsubscribe(filters.clone()));
        self.cluster.record(Event::Unsubscribing { link, filters });
    }

    async fn leave(&mut self, wire: &mut Wire) -> Over {
        let with_will = self.habits.version == ProtocolVersion::V5 && self.dice.chance(300);
        wire.disconnect(with_will);
        // What is left unsent nobody will read.
        let _ = flush(wire).await;
        if with_will { End::LeftWithWill } else { End::Left }
    }

    /// Breaks off, perhaps in the middle of a packet, perhaps without closing.
    async fn cut(&mut self, link: Link, wire: &mut Wire) -> Over {
        if self.features.takeover && self.dice.chance(300) {
            return End::LeftOpen;
        }
        if self.dice.chance(500) && self.state.outgoing.len() < WINDOW {
            let message = self.compose();
            self.publish(link, wire, message);
            let bytes = self.dice.between(0, wire.unsent() as u64 - 1);
            // A socket that takes nothing takes nothing of it.
            let _ = timeout(WRITE_LIMIT, wire.flush_part(usize::try_from(bytes).unwrap())).await;
        }
        End::Cut
    }

    fn report(&self) {
        self.set_status(Status { is_connected: true, is_settled: self.state.is_settled() && self.owed.is_empty() });
    }

    fn set_status(&self, status: Status) {
        *self.status.lock().unwrap() = status;
    }

    fn on_frame(&mut self, link: Link, frame: &[u8]) -> Result<(), Over> {
        let packet = match decode::packet(frame, Some(self.habits.version), Sender::Server) {
            Ok(packet) => packet,
            Err(error) => return Err(self.broken(link, format!("{error}: {frame:02x?}"))),
        };
        match packet {
            Packet::Publish(publish) => self.on_publish(link, &publish),
            Packet::PubAck(ack) => self.on_answer(link, ack.packet_id.get(), ack.reason, Answer::Acked, 1),
            Packet::PubRec(ack) => {
                let id = ack.packet_id.get();
                self.on_answer(link, id, ack.reason, Answer::Received, 2)?;
                if !ack.reason.is_error() {
                    self.owed.push(Owed::Release(id));
                }
                Ok(())
            }
            Packet::PubComp(ack) => self.on_answer(link, ack.packet_id.get(), ack.reason, Answer::Completed, 2),
            Packet::PubRel(ack) => {
                let id = ack.packet_id.get();
                self.state.on_release(id);
                self.owed.push(Owed::Complete(id));
                Ok(())
            }
            Packet::SubAck(suback) => match self.state.requests.remove(&suback.packet_id.get()) {
                Some(Request::Subscribe(asked)) => {
                    let filters = granted(&asked, &suback.reasons);
                    self.cluster.record(Event::Subscribed { link, filters });
                    Ok(())
                }
                Some(Request::Unsubscribe(_)) | None => Err(self.broken(link, "SUBACK for nothing".into())),
            },
            Packet::UnsubAck(unsuback) => match self.state.requests.remove(&unsuback.packet_id.get()) {
                Some(Request::Unsubscribe(filters)) => {
                    self.cluster.record(Event::Unsubscribed { link, filters });
                    Ok(())
                }
                Some(Request::Subscribe(_)) | None => Err(self.broken(link, "UNSUBACK for nothing".into())),
            },
            Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => Err(End::Closed(Some(disconnect.reason.as_u8()))),
            other @ (Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_)) => Err(self.broken(link, format!("{other:?}"))),
        }
    }

    fn on_answer(&mut self, link: Link, id: u16, reason: ReasonCode, answer: Answer, qos: u8) -> Result<(), Over> {
        let answer = if reason.is_error() { Answer::Refused(reason.as_u8()) } else { answer };
        match self.state.on_answer(id, answer, qos) {
            Ok((message, answer)) => {
                let (name, topic) = (message.name, message.topic);
                self.cluster.record(Event::Answered { link, name, topic, answer });
                Ok(())
            }
            Err(what) => Err(self.broken(link, what)),
        }
    }

    fn on_publish(&mut self, link: Link, publish: &millrace::mqtt::packet::Publish<'_>) -> Result<(), Over> {
        let Some(name) = Name::parse(publish.payload) else {
            return Err(self.broken(link, format!("a payload nobody sent: {:?}", publish.payload)));
        };
        let (qos, topic) = (publish.delivery.qos().as_u8(), publish.topic.to_owned());
        let message = Message { name, topic, qos, retain: publish.retain };
        let id = publish.delivery.packet_id().map_or(0, millrace::mqtt::PacketId::get);
        let fresh = match qos {
            0 => true,
            _ => match self.state.on_publish(id, name, qos, publish.dup) {
                Ok(fresh) => fresh,
                Err(what) => return Err(self.broken(link, what)),
            },
        };
        let (open, receive_max) = (self.state.open_here(), usize::from(self.habits.receive_max));
        if receive_max > 0 && open > receive_max {
            return Err(self.broken(link, format!("{open} messages open, the receive maximum is {receive_max}")));
        }
        match qos {
            0 => {}
            1 => self.owed.push(Owed::Ack(id)),
            _ => self.owed.push(Owed::Received(id)),
        }
        self.cluster.record(Event::Delivered { link, message, dup: publish.dup, fresh });
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Publish,
    Subscribe,
    Unsubscribe,
    Leave,
    Cut,
    Nap,
    Ping,
}

impl Habits {
    fn draw(plan: &Plan, dice: &mut Dice) -> Self {
        let features = plan.features;
        let version = *dice.pick(&[ProtocolVersion::V311, ProtocolVersion::V5]);
        let (publishes, subscribes) = *dice.pick(&[(60, 2), (3, 12), (30, 8)]);
        let cuts = if plan.trouble.cuts { *dice.pick(&[0, 1, 4]) } else { 0 };
        let expiry_s = if features.persistent { *dice.pick(&[0, 3600, 3600]) } else { 0 };
        Self {
            version,
            // 3.x knows no time: the session lives as long as the server lets it.
            expiry_s,
            keep_alive_s: *dice.pick(&[0, 5, 30]),
            publishes,
            subscribes,
            leaves: *dice.pick(&[0, 1, 2]),
            cuts,
            naps: *dice.pick(&[0, 0, 2]),
            pause_ms: *dice.pick(&[50, 200, 600]),
            is_lazy: dice.chance(300),
            is_mute: false,
            receive_max: if version == ProtocolVersion::V5 { *dice.pick(&[0, 0, 1, 4]) } else { 0 },
            padding: *dice.pick(&[0, 0, 20, 1500]),
            clean_start_permille: *dice.pick(&[0, 100, 300]),
        }
    }
}

/// The filters that were granted, each with its QoS.
fn granted(asked: &[(String, u8)], reasons: &[ReasonCode]) -> Vec<(String, u8)> {
    let each = asked.iter().zip(reasons).filter(|(_, reason)| !reason.is_error());
    each.map(|((filter, _), reason)| (filter.clone(), reason.as_u8())).collect()
}

async fn flush(wire: &mut Wire) -> Result<(), Over> {
    match timeout(WRITE_LIMIT, wire.flush()).await {
        Ok(true) => Ok(()),
        // The server closed; what it said before is still to be read.
        Ok(false) => Err(End::Closed(None)),
        Err(_) => Err(End::GaveUp),
    }
}

/// A connection that its client has forgotten: listens until the server closes it, and tries to subscribe.
async fn stay_open(cluster: Arc<Cluster>, link: Link, mut wire: Wire) {
    let version = wire.version;
    let is_superseded = || {
        let history = cluster.history();
        let newer = |event: &Event| {
            matches!(event, Event::Accepted { link: other, .. }
                if other.client == link.client && other.connection > link.connection)
        };
        history.entries.iter().rev().any(|entry| newer(&entry.event))
    };
    let mut asked = false;
    loop {
        match timeout(Duration::from_millis(500), wire.read()).await {
            Ok(None) => break,
            Ok(Some(frame)) => {
                let what = match decode::packet(&frame, Some(version), Sender::Server) {
                    // What it asked for before may have been granted before, too.
                    Ok(Packet::SubAck(suback)) if suback.packet_id.get() == STRAY_ID => "was granted a subscription",
                    Ok(Packet::Disconnect(_)) => "was told to go",
                    Ok(_) | Err(_) => continue,
                };
                cluster.record(Event::Stray { link, what });
            }
            Err(_) if !asked && is_superseded() => {
                asked = true;
                wire.subscribe(STRAY_ID, &[("stray".to_owned(), 1)]);
                if timeout(WRITE_LIMIT, wire.flush()).await != Ok(true) {
                    break;
                }
                cluster.record(Event::Stray { link, what: "subscribes" });
            }
            Err(_) => {
                wire.ping();
                if timeout(WRITE_LIMIT, wire.flush()).await != Ok(true) {
                    break;
                }
            }
        }
    }
    cluster.record(Event::Stray { link, what: "was closed" });
}
