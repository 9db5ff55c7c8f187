//! The server keeps the protocol: nothing that a client could not make sense of.

use super::{Findings, events};
use crate::history::{Event, History};

pub(crate) fn check(history: &History, findings: &mut Findings) {
    for (index, event) in events(history) {
        if let Event::Broken { link, what } = event {
            findings.add("protocol", format!("client {} at {index}: {what}", link.client));
        }
    }
}
