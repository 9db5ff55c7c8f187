//! A client with a socket: connects through the load balancer, comes back when its connection ends, and notes it all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use millrace::clock;
use millrace::mqtt::decode;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{Packet, ProtocolVersion};
use millrace::ops::tasks;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use super::cast::{Death, Dying, Part, Role};
use super::history::{Act, ClientNo, End, Recorder};
use super::machine::{Machine, Out, disconnect, ping};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CONNACK_LIMIT: Duration = Duration::from_secs(8);
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
const ANSWER_EVERY: Duration = Duration::from_millis(150);
const PING_EVERY: Duration = Duration::from_secs(2);
/// A client that hears nothing for so long, though it pings, connects anew.
const SILENCE: Duration = Duration::from_secs(8);
const FAREWELL_LIMIT: Duration = Duration::from_secs(8);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Of the clients, one in so many is hit when connections are cut.
const CUT_ONE_IN: u32 = 3;

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients connect and subscribe; nobody publishes.
    Gathering,
    Publishing,
    /// Nothing new is published; what is open goes on.
    Quiet,
    /// Everybody leaves.
    Over,
}

/// What all clients of a run have in common.
#[derive(Clone)]
pub struct World {
    pub balancer: SocketAddr,
    pub recorder: Arc<Recorder>,
    pub phase: watch::Receiver<Phase>,
    /// Raised when connections are to be cut.
    pub cuts: watch::Receiver<u64>,
    pub seed: u64,
}

/// A client as its maker sees it.
pub struct Client {
    status: Arc<Status>,
}

#[derive(Default)]
struct Status {
    ready: AtomicBool,
    idle: AtomicBool,
    left: AtomicBool,
}

impl Client {
    pub fn start(client: ClientNo, part: Part, world: World) -> Self {
        let status = Arc::new(Status::default());
        status.idle.store(true, Ordering::Release);
        let random = StdRng::seed_from_u64(world.seed ^ (client as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dying = match &part.role {
            Role::Mortal(dying) => Some(*dying),
            Role::Publisher(_) | Role::Subscriber(_) => None,
        };
        let machine = Machine::new(client, part);
        let driver = Driver { client, machine, world, status: Arc::clone(&status), random, dying };
        tasks::spawn("client", driver.run());
        Self { status }
    }

    /// It was connected, and is subscribed if it is a subscriber.
    pub fn is_ready(&self) -> bool {
        self.status.ready.load(Ordering::Acquire)
    }

    /// Nothing of it waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.status.idle.load(Ordering::Acquire)
    }

    /// It is gone for good.
    pub fn has_left(&self) -> bool {
        self.status.left.load(Ordering::Acquire)
    }
}

struct Driver {
    client: ClientNo,
    machine: Machine,
    world: World,
    status: Arc<Status>,
    random: StdRng,
    dying: Option<Dying>,
}

/// A connection with its buffers.
struct Wire {
    stream: TcpStream,
    received: BytesMut,
    heard: Instant,
}

/// How a connection ended.
type Ending = (End, String);

impl Driver {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while *self.world.phase.borrow() < Phase::Over {
            let served = self.connection().await;
            self.machine.on_disconnected();
            if self.dying.is_some() {
                break;
            }
            pause = if served { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            let jitter = pause.mul_f64(self.random.random_range(0.5..1.5));
            tokio::select! {
                () = sleep(jitter) => {}
                () = reached(&mut self.world.phase, Phase::Over) => {}
            }
        }
        self.act(Act::Left);
        self.status.left.store(true, Ordering::Release);
    }

    /// One connection to its end; whether CONNACK came.
    async fn connection(&mut self) -> bool {
        let mut wire = match self.open().await {
            Ok(wire) => wire,
            Err(why) => {
                self.act(Act::NotConnected(why));
                return false;
            }
        };
        let (end, why) = match self.dying {
            Some(dying) => self.live(&mut wire, dying).await,
            None => self.serve(&mut wire).await,
        };
        self.act(Act::Ended(end, why));
        true
    }

    /// Connects, until CONNACK has come and what was open is sent again.
    async fn open(&mut self) -> Result<Wire, String> {
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(self.world.balancer)).await;
        let stream = stream.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut wire = Wire { stream, received: BytesMut::new(), heard: clock::now() };
        let mut out = Out::default();
        self.machine.connect(&mut out);
        self.send(&mut wire, out).await.map_err(|(_, why)| why)?;
        let version = self.machine.version();
        let frame = timeout(CONNACK_LIMIT, wire.frame(version)).await;
        let frame = frame.map_err(|_| "no CONNACK in time".to_owned())?.map_err(|(_, why)| why)?;
        let packet = decode::packet(&frame, Some(version), Sender::Server).map_err(|error| error.to_string())?;
        let Packet::ConnAck(connack) = packet else { return Err(format!("{packet:?} instead of CONNACK")) };
        if connack.reason.is_error() {
            return Err(format!("refused: {:?}", connack.reason));
        }
        let mut out = Out::default();
        self.machine.on_connected(connack.session_present, &mut out);
        if let Err((end, why)) = self.send(&mut wire, out).await {
            self.act(Act::Ended(end, why.clone()));
            return Err(why);
        }
        Ok(wire)
    }

    /// Serves a connection until something ends it.
    async fn serve(&mut self, wire: &mut Wire) -> Ending {
        let (mut publish, mut answer, mut pings) =
            (interval(PUBLISH_EVERY), interval(ANSWER_EVERY), interval(PING_EVERY));
        self.world.cuts.mark_unchanged();
        let version = self.machine.version();
        loop {
            let mut out = Out::default();
            tokio::select! {
                read = wire.read() => if let Err(ending) = read { return ending },
                _ = publish.tick() => if *self.world.phase.borrow() == Phase::Publishing {
                    self.machine.publish(&mut out);
                },
                _ = answer.tick() => self.machine.answer(&mut out),
                _ = pings.tick() => {
                    if wire.heard.elapsed() > SILENCE {
                        return (End::Silence, "no answer to a ping".to_owned());
                    }
                    ping(version, &mut out);
                }
                Ok(()) = self.world.cuts.changed() => if self.random.random_range(0..CUT_ONE_IN) == 0 {
                    return (End::Cut, "by the run".to_owned());
                },
                () = reached(&mut self.world.phase, Phase::Over) => {
                    return self.say_farewell(wire).await;
                }
            }
            if let Err(ending) = self.handle_all(wire, &mut out) {
                return ending;
            }
            if let Err(ending) = self.send(wire, out).await {
                return ending;
            }
        }
    }

    /// Handles all whole packets.
    fn handle_all(&mut self, wire: &mut Wire, out: &mut Out) -> Result<(), Ending> {
        let version = self.machine.version();
        while let Some(frame) = wire.next_frame(version)? {
            match decode::packet(&frame, Some(version), Sender::Server) {
                Ok(Packet::Disconnect(disconnect)) => {
                    return Err((End::Broker, format!("DISCONNECT {:?}", disconnect.reason)));
                }
                Ok(packet) => self.machine.handle(&packet, out),
                Err(error) => out.acts.push(Act::Odd(format!("the broker sent {frame:02x?}: {error}"))),
            }
        }
        Ok(())
    }

    /// The one connection of a client with a will.
    async fn live(&mut self, wire: &mut Wire, dying: Dying) -> Ending {
        let version = self.machine.version();
        let life = sleep(Duration::from_millis(dying.after_ms));
        tokio::pin!(life);
        let mut pings = interval(PING_EVERY);
        loop {
            let mut out = Out::default();
            tokio::select! {
                read = wire.read() => if let Err(ending) = read { return ending },
                _ = pings.tick() => {
                    if wire.heard.elapsed() > SILENCE {
                        return (End::Silence, "no answer to a ping".to_owned());
                    }
                    ping(version, &mut out);
                }
                () = &mut life, if dying.death != Death::Waits => {
                    return match dying.death {
                        Death::Peaceful => self.say_farewell(wire).await,
                        Death::Cut | Death::Waits => (End::Cut, "its time had come".to_owned()),
                    };
                }
                () = reached(&mut self.world.phase, Phase::Quiet) => {
                    return (End::Cut, "the run is over".to_owned());
                }
            }
            if let Err(ending) = self.handle_all(wire, &mut out) {
                return ending;
            }
            if let Err(ending) = self.send(wire, out).await {
                return ending;
            }
        }
    }

    /// DISCONNECT; that the broker heard it is known when it closes the connection.
    async fn say_farewell(&mut self, wire: &mut Wire) -> Ending {
        let mut out = Out::default();
        disconnect(self.machine.version(), &mut out);
        if let Err(ending) = self.send(wire, out).await {
            return ending;
        }
        let closed = async {
            loop {
                wire.received.clear();
                if wire.read().await.is_err() {
                    break;
                }
            }
        };
        match timeout(FAREWELL_LIMIT, closed).await {
            Ok(()) => (End::Disconnected, String::new()),
            Err(_) => (End::Silence, "DISCONNECT was not heard".to_owned()),
        }
    }

    /// Notes what is done, then does it.
    async fn send(&mut self, wire: &mut Wire, out: Out) -> Result<(), Ending> {
        for act in out.acts {
            self.act(act);
        }
        self.tell();
        let sent = timeout(SILENCE, wire.stream.write_all(&out.bytes)).await;
        match sent {
            Ok(sent) => sent.map_err(|error| broken(&error)),
            Err(_) => Err((End::Silence, "the broker takes nothing".to_owned())),
        }
    }

    fn act(&self, act: Act) {
        self.world.recorder.client(self.client, act);
    }

    fn tell(&self) {
        self.status.ready.store(self.machine.is_ready(), Ordering::Release);
        self.status.idle.store(self.machine.is_idle(), Ordering::Release);
    }
}

impl Wire {
    /// More bytes.
    async fn read(&mut self) -> Result<(), Ending> {
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) => Err((End::Broker, "closed".to_owned())),
            Ok(_) => {
                self.heard = clock::now();
                Ok(())
            }
            Err(error) => Err(broken(&error)),
        }
    }

    /// A whole packet, if there is one.
    fn next_frame(&mut self, version: ProtocolVersion) -> Result<Option<BytesMut>, Ending> {
        let head = frame_head(&self.received, Some(version), Sender::Server, usize::MAX);
        let head = head.map_err(|error| (End::Cut, format!("the broker sent {:02x?}: {error}", self.received)))?;
        let bytes = head.map(|head| head.frame_bytes()).filter(|bytes| *bytes <= self.received.len());
        Ok(bytes.map(|bytes| self.received.split_to(bytes)))
    }

    async fn frame(&mut self, version: ProtocolVersion) -> Result<BytesMut, Ending> {
        loop {
            if let Some(frame) = self.next_frame(version)? {
                return Ok(frame);
            }
            self.read().await?;
        }
    }
}

/// Returns when the run is that far, or when whoever leads it is gone.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await.is_ok();
}

fn broken(error: &io::Error) -> Ending {
    (End::Broker, error.to_string())
}
