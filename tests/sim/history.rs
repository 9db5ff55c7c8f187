//! What happened in a run, in order: what the clients did and saw, and what was done to the nodes.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Names a message, by its payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Name {
    /// Published by a client.
    Message { client: usize, number: u32 },
    /// The will of a connection.
    Will { client: usize, connection: u32 },
    /// No payload: it clears a retained message.
    Clear,
    /// What the log's aborted foreign transactions hold.
    Junk,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { client, number } => write!(f, "m{client}-{number}"),
            Self::Will { client, connection } => write!(f, "w{client}-{connection}"),
            Self::Clear => Ok(()),
            Self::Junk => f.write_str("junk"),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::Clear { f.write_str("(clear)") } else { fmt::Display::fmt(self, f) }
    }
}

impl Name {
    /// From a payload; padding follows a `|`.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let Some(kind) = text.chars().next() else { return Some(Self::Clear) };
        if text == "junk" {
            return Some(Self::Junk);
        }
        let (client, number) = text.split('|').next()?.get(1..)?.split_once('-')?;
        let client = client.parse().ok()?;
        let number = number.parse().ok()?;
        match kind {
            'm' => Some(Self::Message { client, number }),
            'w' => Some(Self::Will { client, connection: number }),
            _ => None,
        }
    }
}

/// A message as it was published.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) name: Name,
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retain = if self.retain { " retain" } else { "" };
        write!(f, "{:?} on {} qos{}{retain}", self.name, self.topic, self.qos)
    }
}

/// One connection of one client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) connection: u32,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}.{}", self.client, self.connection)
    }
}

/// What a CONNECT asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) node: usize,
    pub(crate) clean_start: bool,
    /// 0: the session ends with the connection.
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<Will>,
}

/// The will of a CONNECT; its name is the connection's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
}

/// How a connection ended, as the client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client sent DISCONNECT: no will.
    Left,
    /// The client sent DISCONNECT and asked for its will.
    LeftWithWill,
    /// The client broke off without a word.
    Cut,
    /// The client opened another connection and left this one as it was.
    LeftOpen,
    /// The server closed it; the reason of its DISCONNECT, if it sent one.
    Closed(Option<u8>),
    /// Nobody answered.
    GaveUp,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Acked,
    Received,
    Completed,
    /// With this reason code.
    Refused(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connecting {
        link: Link,
        asked: Asked,
    },
    /// CONNACK: the client was let in.
    Accepted {
        link: Link,
        session_present: bool,
    },
    Refused {
        link: Link,
        reason: u8,
    },
    Ended {
        link: Link,
        end: End,
    },
    Sent {
        link: Link,
        message: Message,
        dup: bool,
    },
    Answered {
        link: Link,
        name: Name,
        topic: String,
        answer: Answer,
    },
    /// The session was gone: the client forgot this publish, whose fate it does not know.
    Abandoned {
        client: usize,
        name: Name,
    },
    Subscribing {
        link: Link,
        filters: Vec<(String, u8)>,
    },
    /// With what was granted; refusals are left out.
    Subscribed {
        link: Link,
        filters: Vec<(String, u8)>,
    },
    Unsubscribing {
        link: Link,
        filters: Vec<String>,
    },
    Unsubscribed {
        link: Link,
        filters: Vec<String>,
    },
    /// `fresh`: not a repetition that the protocol tells the client to pass over.
    Delivered {
        link: Link,
        message: Message,
        dup: bool,
        fresh: bool,
    },
    /// On a connection that the client had left open.
    Stray {
        link: Link,
        what: &'static str,
    },
    /// The server broke the protocol.
    Broken {
        link: Link,
        what: String,
    },
    Node {
        node: usize,
        what: &'static str,
    },
    Phase(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at_ms: u64,
    pub(crate) event: Event,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) entries: Vec<Entry>,
}

impl History {
    pub(crate) fn push(&mut self, at_ms: u64, event: Event) {
        self.entries.push(Entry { at_ms, event });
    }

    /// The last `count` entries, one a line.
    pub(crate) fn tail(&self, count: usize) -> String {
        let from = self.entries.len().saturating_sub(count);
        let mut text = String::new();
        for (index, Entry { at_ms, event }) in self.entries.iter().enumerate().skip(from) {
            writeln!(text, "{index:>6} {:>5}.{:03} s  {event:?}", at_ms / 1000, at_ms % 1000).unwrap();
        }
        text
    }

    /// How often each kind of event happened.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            let text = format!("{:?}", entry.event);
            let kind = match &entry.event {
                Event::Node { what, .. } => format!("node {what}"),
                Event::Answered { answer, .. } => format!("{answer:?}"),
                _ => text.split([' ', '(']).next().unwrap_or_default().to_owned(),
            };
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }
}

/// FNV-1a, 64 bits: what two runs of a seed are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn of_history(history: &History) -> Self {
        let mut digest = Self::default();
        digest.add(history.tail(usize::MAX).as_bytes());
        digest
    }
}
