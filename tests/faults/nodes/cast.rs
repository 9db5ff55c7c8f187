//! Who takes part in a run.

use std::num::NonZeroU16;

use millrace::mqtt::packet::{ProtocolVersion, QoS};

use super::history::{ClientNo, TopicNo};

/// Where the topics of publishers begin.
const TOPIC_PREFIX: &str = "nodes/";
/// Where the topics of wills begin.
const WILL_PREFIX: &str = "wills/";

/// All clients of a run.
#[derive(Clone, Debug, Default)]
pub struct Cast {
    pub clients: Vec<Part>,
}

/// One client.
#[derive(Clone, Debug)]
pub struct Part {
    pub id: String,
    pub version: ProtocolVersion,
    pub role: Role,
}

/// What a client is there for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Publishes to the topic of its own number.
    Publisher(Publishing),
    /// Subscribes, and stays subscribed.
    Subscriber(Subscribing),
    /// Has a will, and never comes back after its connection.
    Mortal(Dying),
}

#[derive(Clone, Copy, Debug)]
pub struct Publishing {
    pub qos: QoS,
    /// Messages that are not acknowledged (QoS 2: not completed).
    pub window: usize,
    pub ids: Ids,
}

/// How a library chooses packet ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The lowest that is free: the same few again and again.
    Lowest,
    /// The next one; after the last the first.
    Next,
}

#[derive(Clone, Debug)]
pub struct Subscribing {
    pub filter: String,
    pub topics: Vec<TopicNo>,
    pub qos: QoS,
    /// How many unacknowledged messages it takes; only MQTT 5 can say it.
    pub receive_maximum: NonZeroU16,
    /// Acknowledges only now and then, so that its window is never empty.
    pub is_slow: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Dying {
    pub delay_s: u32,
    pub death: Death,
    /// How long it lives.
    pub after_ms: u64,
}

/// How a client with a will leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// DISCONNECT: nobody hears of the will.
    Peaceful,
    /// The connection is cut.
    Cut,
    /// It stays until something else ends its connection.
    Waits,
}

impl Cast {
    pub fn qos_of(&self, topic: TopicNo) -> Option<QoS> {
        match &self.clients.get(topic)?.role {
            Role::Publisher(publishing) => Some(publishing.qos),
            Role::Subscriber(_) | Role::Mortal(_) => None,
        }
    }

    pub fn publishers(&self) -> impl Iterator<Item = (TopicNo, &Publishing)> {
        self.clients.iter().enumerate().filter_map(|(client, part)| match &part.role {
            Role::Publisher(publishing) => Some((client, publishing)),
            Role::Subscriber(_) | Role::Mortal(_) => None,
        })
    }

    pub fn subscribers(&self) -> impl Iterator<Item = (ClientNo, &Subscribing)> {
        self.clients.iter().enumerate().filter_map(|(client, part)| match &part.role {
            Role::Subscriber(subscribing) => Some((client, subscribing)),
            Role::Publisher(_) | Role::Mortal(_) => None,
        })
    }

    pub fn mortals(&self) -> impl Iterator<Item = ClientNo> {
        let clients = self.clients.iter().enumerate();
        clients.filter(|(_, part)| matches!(part.role, Role::Mortal(_))).map(|(client, _)| client)
    }

    /// The QoS at which a subscriber gets the messages of a topic.
    pub fn qos_between(&self, topic: TopicNo, subscribing: &Subscribing) -> QoS {
        self.qos_of(topic).unwrap_or_default().min(subscribing.qos)
    }
}

/// The topic of a publisher.
pub fn topic(publisher: TopicNo) -> String {
    format!("{TOPIC_PREFIX}{publisher}")
}

/// Which publisher's topic it is.
pub fn publisher_of(topic: &str) -> Option<TopicNo> {
    topic.strip_prefix(TOPIC_PREFIX)?.parse().ok()
}

/// The topic of a client's will.
pub fn will_topic(client: ClientNo) -> String {
    format!("{WILL_PREFIX}{client}")
}

/// Whose will's topic it is.
pub fn mortal_of(topic: &str) -> Option<ClientNo> {
    topic.strip_prefix(WILL_PREFIX)?.parse().ok()
}

/// Everything that publishers say.
pub fn everything() -> String {
    format!("{TOPIC_PREFIX}#")
}
