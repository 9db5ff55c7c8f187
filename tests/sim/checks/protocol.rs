//! The server keeps the protocol: nothing that a client could not make sense of. And it does not spin.

use super::{Findings, events};
use crate::history::{Event, History};

pub(crate) fn check(history: &History, findings: &mut Findings) {
    for (index, event) in events(history) {
        if let Event::Broken { link, what } = event {
            findings.add("protocol", format!("client {} at {index}: {what}", link.client));
        }
        if let Event::Node { node, what: "spins" } = event {
            findings.add("livelock", format!("the tasks of node {node} at {index} wake each other for ever"));
        }
    }
}
