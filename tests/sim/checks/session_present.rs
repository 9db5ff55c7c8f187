//! Session Present says whether there was a session [MQTT-3.2.2-2], as far as the client can know.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::history::{Entry, Event, History};

/// A session that ends so close to its expiry may be there or not, in milliseconds.
const MARGIN_MS: u64 = 60_000;

/// What the client knows of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There {
        expiry_s: u32,
        left_at_ms: Option<u64>,
    },
    Gone,
    /// A CONNECT was not answered, which may have changed it.
    Either,
}

/// A CONNECT that its client gave up may come at any time later: its node may have stood still.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    may_make: bool,
    may_end: bool,
}

pub(crate) fn check(history: &History, persistent: bool, findings: &mut Findings) {
    let mut known: BTreeMap<usize, Known> = BTreeMap::new();
    let mut late: BTreeMap<usize, Late> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    let mut asked_of = BTreeMap::new();
    for (index, Entry { at_ms, event }) in history.entries.iter().enumerate() {
        match event {
            Event::Connecting { link, asked } => {
                asked_of.insert(*link, (asked.clone(), known.get(&link.client).copied().unwrap_or(Known::Gone)));
                let unsure = match known.get(&link.client) {
                    Some(Known::There { .. }) if !asked.clean_start => continue,
                    None | Some(Known::Gone) if asked.expiry_s == 0 => continue,
                    _ => Known::Either,
                };
                known.insert(link.client, unsure);
            }
            Event::Accepted { link, session_present } => {
                let Some((asked, before)) = asked_of.get(link) else { continue };
                answered.insert(*link);
                let late = late.get(&link.client).copied().unwrap_or_default();
                let expected = match before {
                    _ if asked.clean_start => Some(false),
                    _ if !persistent => Some(false),
                    Known::Gone if !late.may_make => Some(false),
                    Known::There { .. } if late.may_end => None,
                    Known::Gone | Known::Either => None,
                    Known::There { expiry_s, left_at_ms } => {
                        let gone_ms = left_at_ms.map_or(0, |left_at_ms| at_ms - left_at_ms);
                        let limit_ms = u64::from(*expiry_s) * 1000;
                        if gone_ms + MARGIN_MS < limit_ms { Some(true) } else { None }
                    }
                };
                if expected.is_some_and(|expected| expected != *session_present) {
                    let client = link.client;
                    let what =
                        format!("client {client} was told {session_present} at {index}, it should be {expected:?}");
                    findings.add("session present", what);
                }
                let now = if asked.expiry_s > 0 {
                    Known::There { expiry_s: asked.expiry_s, left_at_ms: None }
                } else {
                    // It ends with the connection, at the latest when the next one is accepted.
                    Known::Gone
                };
                known.insert(link.client, now);
            }
            Event::Refused { link, .. } => {
                answered.insert(*link);
            }
            Event::Ended { link, .. } => {
                if let Some((asked, _)) = asked_of.get(link).filter(|_| !answered.contains(link)) {
                    let late = late.entry(link.client).or_default();
                    late.may_make |= asked.expiry_s > 0;
                    late.may_end |= asked.expiry_s == 0;
                }
                if let Some(Known::There { left_at_ms, .. }) = known.get_mut(&link.client) {
                    *left_at_ms = Some(*at_ms);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{asked, connect, ended, found, history};
    use super::*;
    use crate::history::{Asked, End, Link};

    /// Each CONNECT with Session Present if it was answered, and with the end of that connection.
    fn wrong(connects: &[(Asked, Option<bool>)]) -> usize {
        let mut events = Vec::new();
        for ((asked, answer), connection) in connects.iter().zip(0..) {
            if let Some(session_present) = answer {
                events.extend(connect(1, connection, asked.clone(), *session_present));
            } else {
                let link = Link { client: 1, connection };
                events.push(Event::Connecting { link, asked: asked.clone() });
            }
            events.push(ended(1, connection, End::Cut));
        }
        found(|f| check(&history(events), true, f)).len()
    }

    #[test]
    fn a_session_that_is_not_there_or_should_not_be_is_found() {
        let (lasting, resumed, clean) = (asked(true, 3600), asked(false, 3600), asked(true, 0));
        assert_eq!(wrong(&[(lasting.clone(), Some(false)), (resumed.clone(), Some(true))]), 0);
        assert_eq!(wrong(&[(lasting.clone(), Some(false)), (resumed.clone(), Some(false))]), 1);
        assert_eq!(wrong(&[(lasting.clone(), Some(false)), (clean.clone(), Some(true))]), 1);
        assert_eq!(wrong(&[(resumed.clone(), Some(true))]), 1, "there was none");
        assert_eq!(wrong(&[(resumed.clone(), None), (resumed.clone(), Some(true))]), 0, "it may have been made");
        assert_eq!(wrong(&[(lasting.clone(), Some(false)), (clean.clone(), None), (resumed.clone(), Some(false))]), 0);
        assert_eq!(wrong(&[(clean, Some(false)), (resumed.clone(), Some(true))]), 1, "it ended with its connection");
        assert_eq!(wrong(&[(lasting, Some(false)), (resumed.clone(), None), (resumed, Some(false))]), 1);
    }

    #[test]
    fn a_connect_without_an_answer_may_come_later_than_others() {
        let (lasting, resumed, clean) = (asked(true, 3600), asked(false, 3600), asked(true, 0));
        let late = [(lasting.clone(), None), (clean.clone(), Some(false)), (resumed.clone(), Some(true))];
        assert_eq!(wrong(&late), 0, "the first one may have come last");
        assert_eq!(wrong(&late[1..]), 1);
        let ended = [(clean, None), (lasting.clone(), Some(false)), (resumed, Some(false))];
        assert_eq!(wrong(&ended), 0, "the first one may have come last");
        assert_eq!(wrong(&ended[1..]), 1);
    }
}
