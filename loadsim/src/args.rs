//! What can be typed.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millrace::mqtt::{ProtocolVersion, QoS};

use crate::client::Lasting;
use crate::clock::nanos;
use crate::schedule::Rate;
use crate::spec::{Kill, Pace, Publishing, Spec, Subscribing, Target, Timing};
use crate::stamp::STAMP_BYTES;
use crate::template::Template;

/// Open-loop MQTT load that proves loss, duplicates and order.
///
/// Every message has an intended send time that does not depend on how the broker is doing, and every latency is
/// measured from it: a broker that stalls is seen to stall. Exit code 0: the run went well; 1: an acknowledged
/// message was lost, or a connection refused or lost; 2: there was no run.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open connections at a rate and keep them, idle but for pings
    Conn(ConnArgs),
    /// Publish
    Pub(PubArgs),
    /// Subscribe, and check what comes
    Sub(SubArgs),
    /// Publish and subscribe, wait until everything has arrived, and prove it
    Bench(BenchArgs),
    /// Subscribers with sessions that lose their node, come back and catch up, while messages are published
    Resume(ResumeArgs),
}

impl Command {
    /// What every command has.
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Conn(args) => &args.common,
            Self::Pub(args) => &args.common,
            Self::Sub(args) => &args.common,
            Self::Bench(args) => &args.common,
            Self::Resume(args) => &args.common,
        }
    }
}

#[derive(Args, Debug)]
pub struct CommonArgs {
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883", value_parser = broker)]
    broker: SocketAddr,
    /// Another node of the broker, to which clients turn that lost their connection; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = broker)]
    fallback: Vec<SocketAddr>,
    /// MQTT version: 3.1, 3.1.1 or 5
    #[arg(long, value_name = "VERSION", default_value = "3.1.1", value_parser = protocol)]
    protocol: ProtocolVersion,
    /// Client ids; {i} is the index of the connection, {run} differs from run to run
    #[arg(long, value_name = "TEMPLATE", default_value = "loadsim-{run}-{i}")]
    client_id: Template,
    /// User name
    #[arg(long)]
    username: Option<String>,
    /// Password
    #[arg(long)]
    password: Option<String>,
    /// Keep-alive in seconds, 0 for none; pings go out after three quarters of it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    keep_alive_s: u16,
    /// How long sessions outlive their connections, in seconds (MQTT 5) [default: 0, with `resume` 3600]
    #[arg(long, value_name = "SECONDS")]
    session_expiry_s: Option<u32>,
    /// Begin with a new session; MQTT 3.1.1 sessions last only if they do not
    /// [default: true, with `resume` and MQTT 3.1.1 false]
    #[arg(long, value_name = "BOOL")]
    clean_start: Option<bool>,
    /// Clients that were ready and lose their connection come back, go on with their session and send again what was
    /// not acknowledged
    #[arg(long)]
    reconnect: bool,
    /// New connections per second
    #[arg(long, value_name = "RATE", default_value = "1000")]
    connect_rate: Rate,
    /// From the intended time of a connection until its client must be ready
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    connect_timeout_s: Duration,
    /// Source addresses to use in turn, such as 127.0.0.1-127.0.0.4 or 10.0.0.7,10.0.0.8; each has some 28,000 ports
    #[arg(long, value_name = "ADDRESSES", value_parser = addresses)]
    source_addresses: Option<Addresses>,
    /// Worker threads; one leaves the other cores to the broker
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Also report CPU and memory of this process, usually the broker
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Exit with 0 even if acknowledged messages or connections were lost
    #[arg(long)]
    pub allow_loss: bool,
}

#[derive(Args, Debug)]
pub struct LoadArgs {
    /// Publishers
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// Messages per second of all publishers together, or `max`: as many as --window allows, each intended when sent
    #[arg(long, default_value = "1000", value_parser = pace)]
    rate: Pace,
    /// Messages are intended at multiples of this time: at 5000 per second and 1000 us, five at a time. Shorter ticks
    /// spread the load more evenly and cost loadsim more CPU
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tick_us: u32,
    /// QoS of the messages: 0, 1 or 2
    #[arg(long, default_value = "1", value_parser = qos)]
    qos: QoS,
    /// Topic of each publisher; {i} is its index [default: bench/{i}, with `resume` resume/{i}]
    #[arg(long, value_name = "TEMPLATE")]
    topic: Option<Template>,
    /// Topics of each publisher, which it takes in turn; the {i} of the topics goes through those of all publishers
    /// [default: 1, with `resume` as many as there are subscribers for each publisher]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    topics_each: Option<u32>,
    /// Bytes of a payload, the stamp of 28 bytes included
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = payload_bytes)]
    payload_bytes: usize,
    /// Unacknowledged messages per publisher (QoS 1 and 2), never more than the broker's receive maximum
    /// [default: 64 with --rate max, else 65535]
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u16).range(1..))]
    window: Option<u16>,
    /// Publish so many messages in all, instead of for a duration
    #[arg(long, value_name = "MESSAGES")]
    count: Option<u64>,
    /// After the end, wait at most so long for what is still on its way
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    drain_s: Duration,
}

#[derive(Args, Debug)]
pub struct ConnArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Connections
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Hold them for so long once all are there
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    duration_s: Duration,
}

#[derive(Args, Debug)]
pub struct PubArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Publish for so long [default: 10, or as long as --count takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration_s: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct SubArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Subscribers
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Filter of each subscriber; {i} is its index. `$share/group/filter` makes them share
    #[arg(long, value_name = "TEMPLATE", default_value = "bench/#")]
    filter: Template,
    /// QoS to ask for: 0, 1 or 2
    #[arg(long, default_value = "1", value_parser = qos)]
    qos: QoS,
    /// End after so many messages, duplicates not counted
    #[arg(long, value_name = "MESSAGES")]
    count: Option<u64>,
    /// End after so long [default: at --count, or when interrupted]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration_s: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Subscribers
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Filter of each subscriber; {i} is its index. `$share/group/filter` makes them share
    #[arg(long, value_name = "TEMPLATE", default_value = "bench/{i}")]
    filter: Template,
    /// QoS that subscribers ask for [default: that of the messages]
    #[arg(long, value_name = "QOS", value_parser = qos)]
    sub_qos: Option<QoS>,
    /// Further connections that only stay
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    idle: u32,
    /// Load before the measured window; proved too, but not measured
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warm_up_s: Duration,
    /// Length of the measured window [default: 10, or as long as --count takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration_s: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct ResumeArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Subscribers
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Filter of each subscriber; {i} is its index
    #[arg(long, value_name = "TEMPLATE", default_value = "resume/{i}")]
    filter: Template,
    /// Connections that are made anew each second, every other one to a session that goes on
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    probes: u32,
    /// End this process (SIGKILL): the node to lose. Without it the operator does that
    #[arg(long, value_name = "PID")]
    kill_pid: Option<u32>,
    /// When, from the beginning of the load
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    kill_after_s: Duration,
    /// Length of the load
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = seconds)]
    duration_s: Duration,
}

const DURATION_DEFAULT: Duration = Duration::from_secs(10);

impl ConnArgs {
    pub fn into_spec(self, run: u32) -> Spec {
        let timing = Timing { warm_up_ns: 0, duration_ns: nanos(self.duration_s), drain_ns: 0 };
        Spec { idle: self.connections, is_tolerant: true, ..self.common.into_spec(run, timing, Lasting::NOT) }
    }
}

impl PubArgs {
    pub fn into_spec(self, run: u32) -> Spec {
        let timing = self.load.timing(Duration::ZERO, self.duration_s);
        Spec {
            publishing: self.load.into_publishing("bench/{i}", 1),
            ..self.common.into_spec(run, timing, Lasting::NOT)
        }
    }
}

impl SubArgs {
    pub fn into_spec(self, run: u32) -> Spec {
        let duration_ns = self.duration_s.map_or(u64::MAX, nanos);
        let timing = Timing { warm_up_ns: 0, duration_ns, drain_ns: 0 };
        let Self { subscribers, filter, qos, count: messages, .. } = self;
        let subscribing = Subscribing { subscribers, filter, qos, messages };
        Spec { subscribing, ..self.common.into_spec(run, timing, Lasting::NOT) }
    }
}

impl BenchArgs {
    pub fn into_spec(self, run: u32) -> Spec {
        let timing = self.load.timing(self.warm_up_s, self.duration_s);
        let Self { subscribers, filter, idle, .. } = self;
        let qos = self.sub_qos.unwrap_or(self.load.qos);
        let subscribing = Subscribing { subscribers, filter, qos, messages: None };
        let publishing = self.load.into_publishing("bench/{i}", 1);
        Spec { idle, publishing, subscribing, ..self.common.into_spec(run, timing, Lasting::NOT) }
    }
}

impl ResumeArgs {
    pub fn into_spec(self, run: u32) -> Spec {
        const EXPIRY_S: u32 = 3600;
        let timing = self.load.timing(Duration::ZERO, Some(self.duration_s));
        let Self { common, load, subscribers, filter, probes, kill_pid, kill_after_s, .. } = self;
        let subscribing = Subscribing { subscribers, filter, qos: load.qos, messages: None };
        let topics_each = subscribers.div_ceil(load.publishers);
        let publishing = load.into_publishing("resume/{i}", topics_each);
        let lasting = Lasting { clean_start: common.protocol == ProtocolVersion::V5, expiry_s: EXPIRY_S };
        let kill = kill_pid.map(|pid| Kill { pid, after_ns: nanos(kill_after_s) });
        let spec = common.into_spec(run, timing, lasting);
        // One worker: who has caught up is known where publishers and subscribers are together.
        Spec { publishing, subscribing, probes, kill, returns: true, threads: 1, ..spec }
    }
}

impl LoadArgs {
    fn timing(&self, warm_up: Duration, duration: Option<Duration>) -> Timing {
        let duration_ns = match (duration, self.count) {
            (Some(duration), _) => nanos(duration),
            (None, Some(_)) => u64::MAX,
            (None, None) => nanos(DURATION_DEFAULT),
        };
        Timing { warm_up_ns: nanos(warm_up), duration_ns, drain_ns: nanos(self.drain_s) }
    }

    fn into_publishing(self, topic: &str, topics_each: u32) -> Publishing {
        const WINDOW_CLOSED: u16 = 64;
        let window = match self.rate {
            Pace::Open(_) => u16::MAX,
            Pace::Closed => WINDOW_CLOSED,
        };
        Publishing {
            publishers: self.publishers,
            topic: self.topic.unwrap_or_else(|| Template::new(topic)),
            topics_each: self.topics_each.unwrap_or(topics_each),
            qos: self.qos,
            payload_bytes: self.payload_bytes,
            pace: self.rate,
            tick_ns: u64::from(self.tick_us) * 1000,
            window: self.window.unwrap_or(window),
            messages: self.count,
        }
    }
}

impl CommonArgs {
    /// Connects nobody yet. Sessions last as `lasting` says, where the arguments do not say otherwise.
    fn into_spec(self, run: u32, timing: Timing, lasting: Lasting) -> Spec {
        let clean_start = self.clean_start.unwrap_or(lasting.clean_start);
        let expiry_s = self.session_expiry_s.unwrap_or(lasting.expiry_s);
        Spec {
            run,
            target: Target {
                broker: self.broker,
                fallbacks: self.fallback,
                version: self.protocol,
                client_id: self.client_id,
                username: self.username,
                password: self.password,
                keep_alive_s: self.keep_alive_s,
                connect_rate: self.connect_rate,
                lasting: Lasting { clean_start, expiry_s },
                connect_timeout_ns: nanos(self.connect_timeout_s),
                source_addresses: self.source_addresses.map(|addresses| addresses.0).unwrap_or_default(),
            },
            threads: self.threads,
            idle: 0,
            probes: 0,
            publishing: Publishing {
                publishers: 0,
                topic: Template::default(),
                topics_each: 1,
                qos: QoS::AtMostOnce,
                payload_bytes: 0,
                pace: Pace::Closed,
                tick_ns: 1,
                window: 1,
                messages: None,
            },
            subscribing: Subscribing {
                subscribers: 0,
                filter: Template::default(),
                qos: QoS::AtMostOnce,
                messages: None,
            },
            timing,
            is_tolerant: false,
            returns: self.reconnect,
            kill: None,
        }
    }
}

/// A list of addresses, as one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses(Vec<IpAddr>);

fn addresses(text: &str) -> Result<Addresses, String> {
    const ADDRESSES_MAX: u32 = 65_536;
    let ip = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| format!("`{text}` is no IP address"));
    let mut found = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => found.push(ip(part)?),
            Some((first, last)) => {
                let (IpAddr::V4(first), IpAddr::V4(last)) = (ip(first)?, ip(last)?) else {
                    return Err(format!("`{part}`: only IPv4 addresses make a range"));
                };
                let (first, last) = (u32::from(first), u32::from(last));
                if last < first || last - first >= ADDRESSES_MAX {
                    return Err(format!("`{part}` is an empty or too long range"));
                }
                found.extend((first..=last).map(|bits| IpAddr::V4(bits.into())));
            }
        }
    }
    Ok(Addresses(found))
}

fn broker(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    // Like most brokers, IPv4 first.
    let first = found.next().ok_or("the name has no address")?;
    Ok(std::iter::once(first).chain(found).find(SocketAddr::is_ipv4).unwrap_or(first))
}

fn protocol(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "3.1" => Ok(ProtocolVersion::V31),
        "3.1.1" | "4" => Ok(ProtocolVersion::V311),
        "5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("3.1, 3.1.1 or 5".to_owned()),
    }
}

fn qos(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("0, 1 or 2".to_owned()),
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    if text == "max" { Ok(Pace::Closed) } else { text.parse().map(Pace::Open) }
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
    let bytes = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if (STAMP_BYTES..=PAYLOAD_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("between {STAMP_BYTES}, for the stamp, and {PAYLOAD_BYTES_MAX}"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    const SECONDS_MAX: f64 = 1e8;
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > SECONDS_MAX {
        return Err("more than three years".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn source_addresses_are_lists_and_ranges() {
        let list = |text: &str| addresses(text).map(|Addresses(list)| list.len());
        assert_eq!(list("127.0.0.1"), Ok(1));
        assert_eq!(list("127.0.0.250-127.0.1.5,::1"), Ok(13));
        assert!(list("127.0.0.2-127.0.0.1").is_err());
        assert!(list("0.0.0.0-255.255.255.255").is_err());
        assert!(list("localhost").is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!(payload_bytes("27").is_err());
        assert!(qos("3").is_err());
        assert!(seconds("-1").is_err());
        assert!(seconds("nan").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(protocol("6").is_err());
    }
}
