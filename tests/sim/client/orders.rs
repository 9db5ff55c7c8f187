//! What a scene tells a client to do, one thing after the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::history::Will;

/// A CONNECT: tried until a node lets the client in, or until something else is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(crate) node: usize,
    pub(crate) clean_start: bool,
    /// 0: the session ends with the connection.
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<Will>,
    /// 0: says nothing about it.
    pub(crate) receive_max: u16,
}

impl Visit {
    /// A session that lasts an hour, without a will.
    pub(crate) fn to(node: usize) -> Self {
        Self { node, clean_start: false, expiry_s: 3600, will: None, receive_max: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Goes on after the client was let in; what is connected breaks off first, without a word.
    Connect(Visit),
    Publish {
        topic: &'static str,
        qos: u8,
        retain: bool,
    },
    /// Clears what is retained.
    Clear {
        topic: &'static str,
        qos: u8,
    },
    Subscribe {
        filter: &'static str,
        qos: u8,
    },
    Leave {
        with_will: bool,
    },
    Cut,
    /// Reads nothing for so long, then breaks off.
    Sleep {
        ms: u64,
    },
    /// Breaks off and never comes back.
    Retire,
    /// Leaves the connection as it is and knows nothing more of it.
    LeaveOpen,
    /// Acknowledgements that it owes: `false` keeps them back.
    Pay(bool),
}

/// The orders of one client, shared with the scene.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders(Arc<Mutex<VecDeque<Order>>>);

impl Orders {
    pub(crate) fn give(&self, order: Order) {
        self.with(|orders| orders.push_back(order));
    }

    pub(super) fn take(&self) -> Option<Order> {
        self.with(VecDeque::pop_front)
    }

    /// The next CONNECT; what comes before it was for a connection that is gone.
    pub(super) fn take_visit(&self) -> Option<Visit> {
        self.with(|orders| {
            while let Some(order) = orders.pop_front() {
                if let Order::Connect(visit) = order {
                    return Some(visit);
                }
            }
            None
        })
    }

    /// Whether the next order ends the connection.
    pub(super) fn breaks_off(&self) -> bool {
        self.with(|orders| matches!(orders.front(), Some(Order::Connect(_) | Order::Cut | Order::LeaveOpen)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with(|orders| orders.is_empty())
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Order>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
