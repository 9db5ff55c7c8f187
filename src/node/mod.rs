//! Layer 4: the actors of a node, between the sockets (`net`) and the log (`journal`).

pub mod connections;
pub mod fanout;
pub mod mailbox;
pub mod registry;
mod replay;
pub mod retains;
pub mod steward;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use self::connections::Connections;
use self::fanout::FanoutHandle;
use self::mailbox::MailboxLimits;
use self::registry::Registry;
use self::steward::StewardHandle;
use self::writer::{AckRouter, Writer};
use crate::ops::metrics::Metrics;
use crate::session::Settings;

/// What every connection of a node shares.
pub struct Node {
    /// Bounds of a session.
    pub settings: Arc<Settings>,
    /// Bounds of a mailbox.
    pub mailbox_limits: MailboxLimits,
    /// A socket that takes nothing for so long is closed.
    pub write_stall_ms_max: u64,
    /// By number.
    pub connections: Arc<Connections>,
    /// By client id.
    pub registry: Registry,
    /// Outcomes of appends.
    pub router: Arc<AckRouter>,
    /// Sessions.
    pub steward: StewardHandle,
    /// Counts the samples that tokens of QoS 2 are compared with.
    pub token_tick: Arc<AtomicU32>,
    /// To Kafka.
    pub writer: Arc<Writer>,
    /// From Kafka.
    pub fanout: FanoutHandle,
    /// Counters.
    pub metrics: Arc<Metrics>,
}
