//! A client with the memory that MQTT demands of one (MQTT5 §4.1, §4.4), and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use millrace::clock;
use millrace::mqtt::ReasonCode;
use millrace::mqtt::packet::{Ack, Connect, Delivery, Packet, ProtocolVersion, Publish, QoS};

use super::cell::Way;
use super::packets::{ack, connect, disconnect, disconnect_with_expiry, lasting, packet_id, publish_2, subscribe};
use super::wire::{Silence, Wire};

/// What has not come by then hangs: a dead node is evicted after ten seconds and more.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Before a library connects again.
const PAUSE: Duration = Duration::from_millis(50);

/// How far a publish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// PUBLISH was sent.
    Sent,
    /// PUBREC came. MQTT 5 sends only PUBREL from now on; 3.1.1 lets PUBLISH be sent again until PUBREL is.
    Received,
    /// PUBREL was sent: PUBLISH never again [MQTT-4.3.3-6].
    Released,
}

/// A packet that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    PubRec(u16),
    PubComp(u16),
    Publish(u16),
    PubRel(u16),
    Pong,
    SubAck,
}

pub struct Client {
    name: String,
    version: ProtocolVersion,
    lasts: bool,
    wire: Option<Wire>,
    /// By packet id.
    publishes: BTreeMap<u16, (String, String, Stage)>,
    /// PUBLISH came, and PUBREL did not: packet ids and texts.
    taken: BTreeMap<u16, String>,
    /// PUBCOMP was sent last for this id.
    completed: Option<u16>,
    /// Texts, when they came for the first time.
    pub got: Vec<String>,
}

impl Client {
    /// With a session that outlives its connections.
    pub fn lasting(name: &str, version: ProtocolVersion) -> Self {
        Self { lasts: true, ..Self::clean(name, version) }
    }

    /// With a session that does not.
    pub fn clean(name: &str, version: ProtocolVersion) -> Self {
        Self {
            name: name.to_owned(),
            version,
            lasts: false,
            wire: None,
            publishes: BTreeMap::new(),
            taken: BTreeMap::new(),
            completed: None,
            got: Vec::new(),
        }
    }

    // ---- one thing at a time

    /// Sends CONNECT; the answer is not read.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn ask(&mut self, at: SocketAddr) -> Result<(), String> {
        let asked = self.connect_packet();
        self.wire = Some(Wire::open(at, &asked).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Reads CONNACK.
    ///
    /// # Errors
    /// Another answer, or the wrong one about the session.
    pub fn be_accepted(&mut self, wanted: bool) -> Result<(), String> {
        let name = self.name.clone();
        let present = self.wire()?.connack(clock::now() + PATIENCE).map_err(|error| format!("{name}: {error}"))?;
        if present == wanted { Ok(()) } else { Err(format!("{name}: session present is {present}")) }
    }

    /// The first connection.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn come(&mut self, at: SocketAddr) -> Result<(), String> {
        self.ask(at)?;
        self.be_accepted(false)
    }

    /// With QoS 2.
    ///
    /// # Errors
    /// No SUBACK comes.
    pub fn subscribe(&mut self, filter: &str) -> Result<(), String> {
        self.wire()?.send(&subscribe(9, filter, QoS::ExactlyOnce));
        self.expect(Seen::SubAck)
    }

    /// PUBLISH with QoS 2, for the first time.
    ///
    /// # Errors
    /// There is no connection.
    pub fn publish(&mut self, id: u16, topic: &str, text: &str) -> Result<(), String> {
        self.publishes.insert(id, (topic.to_owned(), text.to_owned(), Stage::Sent));
        self.wire()?.send(&Packet::Publish(publish_2(id, topic, text.as_bytes())));
        Ok(())
    }

    /// PUBREL.
    ///
    /// # Errors
    /// There is no connection.
    pub fn release(&mut self, id: u16) -> Result<(), String> {
        if let Some((_, _, stage)) = self.publishes.get_mut(&id) {
            *stage = Stage::Released;
        }
        self.wire()?.send(&Packet::PubRel(ack(packet_id(id))));
        Ok(())
    }

    /// A normal DISCONNECT.
    ///
    /// # Errors
    /// There is no connection.
    pub fn say_farewell(&mut self) -> Result<(), String> {
        self.wire()?.send(&disconnect(ReasonCode::Success));
        Ok(())
    }

    /// DISCONNECT, and the server closes.
    ///
    /// # Errors
    /// It does not.
    pub fn leave(&mut self, for_good: bool) -> Result<(), String> {
        if for_good && self.version == ProtocolVersion::V5 {
            self.wire()?.send(&disconnect_with_expiry(0));
        } else {
            self.say_farewell()?;
        }
        let deadline = clock::now() + PATIENCE;
        while self.wire()?.next(deadline).map_err(|silence| matches!(silence, Silence::Late)) != Err(false) {
            if clock::now() > deadline {
                return Err("hangs: the server does not close after DISCONNECT".to_owned());
            }
        }
        self.wire = None;
        Ok(())
    }

    /// The next packet, remembered, not answered.
    ///
    /// # Errors
    /// None comes, or one that must not.
    pub fn take(&mut self, deadline: Instant) -> Result<Option<Seen>, String> {
        let frame = match self.wire()?.next(deadline) {
            Ok(frame) => frame,
            Err(Silence::Closed) => return Ok(None),
            Err(Silence::Late) => return Err(format!("{}: hangs: {}", self.name, self.open())),
        };
        let packet = self.wire()?.packet(&frame)?;
        self.remember(&packet).map_err(|error| format!("{}: {error}", self.name))
    }

    /// [`Client::take`], where it must be this packet.
    ///
    /// # Errors
    /// It is another.
    pub fn expect(&mut self, wanted: Seen) -> Result<(), String> {
        match self.take(clock::now() + PATIENCE)? {
            Some(seen) if seen == wanted => Ok(()),
            seen => Err(format!("{}: {seen:?} where {wanted:?} should come", self.name)),
        }
    }

    /// A packet that the client is never to have seen.
    ///
    /// # Errors
    /// None comes.
    pub fn miss(&mut self) -> Result<(), String> {
        self.wire()?
            .next(clock::now() + PATIENCE)
            .map(drop)
            .map_err(|silence| format!("{silence:?}, no packet to miss"))
    }

    /// The next PUBLISH, not answered. Returns its packet id.
    ///
    /// # Errors
    /// Something else comes.
    pub fn expect_publish(&mut self) -> Result<u16, String> {
        match self.take(clock::now() + PATIENCE)? {
            Some(Seen::Publish(id)) => Ok(id),
            seen => Err(format!("{}: {seen:?} where PUBLISH should come", self.name)),
        }
    }

    /// PUBREC.
    ///
    /// # Errors
    /// There is no connection.
    pub fn receive(&mut self, id: u16) -> Result<(), String> {
        self.wire()?.send(&Packet::PubRec(ack(packet_id(id))));
        Ok(())
    }

    /// PUBCOMP.
    ///
    /// # Errors
    /// There is no connection.
    pub fn complete(&mut self, id: u16) -> Result<(), String> {
        self.completed = Some(id);
        self.wire()?.send(&Packet::PubComp(ack(packet_id(id))));
        Ok(())
    }

    /// The connection is gone.
    pub fn break_off(&mut self) {
        self.wire = None;
    }

    /// Nothing comes before the answer to PINGREQ.
    ///
    /// # Errors
    /// Something does.
    pub fn expect_nothing(&mut self) -> Result<(), String> {
        self.wire()?.send(&Packet::PingReq);
        self.expect(Seen::Pong)
    }

    // ---- as a library does it

    /// Comes back, whatever it takes, and says what is to be said first.
    ///
    /// # Errors
    /// The session is gone, or nobody accepts it.
    pub fn come_back(&mut self, at: SocketAddr, repeats: bool) -> Result<(), String> {
        let deadline = clock::now() + PATIENCE;
        loop {
            let tried = self.ask(at).and_then(|()| self.wire()?.connack(clock::now() + PATIENCE));
            match tried {
                Ok(true) => break,
                Ok(false) => return Err(format!("{}: its session is gone", self.name)),
                Err(error) if clock::now() > deadline => return Err(format!("hangs: {}: {error}", self.name)),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        if repeats {
            for id in self.taken.keys().copied().collect::<Vec<_>>() {
                self.receive(id)?;
            }
            if let Some(id) = self.completed {
                self.complete(id)?;
            }
        }
        for (id, (topic, text, stage)) in self.publishes.clone() {
            let publishes = match stage {
                Stage::Sent => true,
                Stage::Received => repeats && self.version == ProtocolVersion::V311,
                Stage::Released => false,
            };
            if publishes {
                let again = Publish { dup: true, ..publish_2(id, &topic, text.as_bytes()) };
                self.wire()?.send(&Packet::Publish(again));
            } else {
                self.release(id)?;
            }
        }
        Ok(())
    }

    /// Answers and is answered until nothing of its own is open and it got so many messages. Comes back when it is
    /// disconnected.
    ///
    /// # Errors
    /// Something is wrong, or does not come.
    pub fn serve(&mut self, at: SocketAddr, got: usize) -> Result<(), String> {
        let deadline = clock::now() + PATIENCE;
        while !self.publishes.is_empty() || !self.taken.is_empty() || self.got.len() < got {
            match self.take(deadline)? {
                Some(Seen::PubRec(id)) => self.release(id)?,
                Some(Seen::Publish(id)) => self.receive(id)?,
                Some(Seen::PubRel(id)) => self.complete(id)?,
                Some(Seen::PubComp(_) | Seen::Pong | Seen::SubAck) => {}
                None => {
                    std::thread::sleep(PAUSE);
                    self.come_back(at, false)?;
                }
            }
        }
        Ok(())
    }

    /// What comes first at another node.
    ///
    /// # Errors
    /// It is not accepted, or not let go.
    pub fn go_on(&mut self, nodes: [SocketAddr; 2], way: Way) -> Result<SocketAddr, String> {
        self.break_off();
        if way == Way::AfterFarewell {
            let said = std::mem::take(&mut self.publishes);
            self.come_back(nodes[0], false)?;
            self.publishes = said;
            self.leave(false)?;
            self.come_back(nodes[1], false)?;
            return Ok(nodes[1]);
        }
        self.come_back(nodes[0], way == Way::Repeating)?;
        Ok(nodes[0])
    }

    // ---- memory

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else was asked for")]
    fn remember(&mut self, packet: &Packet<'_>) -> Result<Option<Seen>, String> {
        let seen = match packet {
            Packet::PubRec(Ack { packet_id, reason, .. }) => {
                let id = packet_id.get();
                if reason.is_error() {
                    return Err(format!("PUBREC {id} says {reason:?}"));
                }
                match self.publishes.get_mut(&id) {
                    Some((_, _, stage @ (Stage::Sent | Stage::Received))) => *stage = Stage::Received,
                    Some((_, _, Stage::Released)) => return Err(format!("PUBREC {id} after PUBREL")),
                    None => return Err(format!("PUBREC {id}, and nothing was published")),
                }
                Seen::PubRec(id)
            }
            Packet::PubComp(Ack { packet_id, .. }) => {
                let id = packet_id.get();
                match self.publishes.remove(&id) {
                    Some((_, _, Stage::Released)) => Seen::PubComp(id),
                    other => return Err(format!("PUBCOMP {id} for {other:?}")),
                }
            }
            Packet::Publish(publish) => Seen::Publish(self.remember_publish(publish)?),
            Packet::PubRel(Ack { packet_id, .. }) => {
                self.taken.remove(&packet_id.get());
                Seen::PubRel(packet_id.get())
            }
            Packet::PingResp => Seen::Pong,
            Packet::SubAck(_) => Seen::SubAck,
            // The connection was taken over by a claim that landed late: it is closed next.
            Packet::Disconnect(_) => return Ok(None),
            other => return Err(format!("the server sent {other:?}")),
        };
        Ok(Some(seen))
    }

    fn remember_publish(&mut self, publish: &Publish<'_>) -> Result<u16, String> {
        let text = String::from_utf8_lossy(publish.payload).into_owned();
        let Delivery::ExactlyOnce(id) = publish.delivery else { return Err(format!("{text} comes without QoS 2")) };
        let id = id.get();
        match self.taken.get(&id) {
            Some(known) if *known == text => {}
            Some(known) => return Err(format!("{text} comes under the id {id} of {known}, which was not released")),
            None if self.got.contains(&text) => return Err(format!("{text} comes again, under the id {id}")),
            None => {
                self.got.push(text.clone());
                self.taken.insert(id, text);
            }
        }
        Ok(id)
    }

    fn open(&self) -> String {
        format!("open are {:?}, taken {:?}, got {:?}", self.publishes, self.taken, self.got)
    }

    fn connect_packet(&self) -> Connect<'static> {
        // Once for each connection of a test.
        let name: &'static str = self.name.clone().leak();
        if !self.lasts {
            return connect(self.version, name);
        }
        let mut asked = lasting(self.version, name);
        // One that is held for ever holds everything.
        asked.properties.receive_maximum = NonZeroU16::new(1).filter(|_| self.version == ProtocolVersion::V5);
        asked
    }

    fn wire(&mut self) -> Result<&mut Wire, String> {
        self.wire.as_mut().ok_or_else(|| "there is no connection".to_owned())
    }
}
