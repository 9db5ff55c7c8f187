//! One connection per client id: once a later one was accepted, the earlier one is closed, and what depends on its session
//! (F5) is not granted any more. A session that ends with its connection has no record that a SUBACK would depend on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, events};
use crate::history::{End, Event, History, Link};

/// Reason code of DISCONNECT: Session taken over.
const TAKEN_OVER: u8 = 0x8e;

pub(crate) fn check(history: &History, is_at_rest: bool, findings: &mut Findings) {
    let mut newest: BTreeMap<usize, u32> = BTreeMap::new();
    let mut last: BTreeMap<usize, u32> = BTreeMap::new();
    let mut unanswered: BTreeSet<usize> = BTreeSet::new();
    let mut asked_late: BTreeSet<Link> = BTreeSet::new();
    let mut open: BTreeSet<Link> = BTreeSet::new();
    let mut lasting: BTreeSet<Link> = BTreeSet::new();
    for (index, event) in events(history) {
        match event {
            Event::Connecting { link, asked } => {
                last.insert(link.client, link.connection);
                if asked.expiry_s > 0 {
                    lasting.insert(*link);
                }
            }
            Event::Ended { link, .. } if newest.get(&link.client) != Some(&link.connection) => {
                unanswered.insert(link.client);
            }
            // The claim of a CONNECT that got no answer may land at any time.
            Event::Ended { link, end: End::Closed(Some(TAKEN_OVER)) }
                if last.get(&link.client) == Some(&link.connection) && !unanswered.contains(&link.client) =>
            {
                let Link { client, connection } = link;
                let what = format!("client {client}: connection {connection} was told at {index} that another one");
                findings.add("ownership", format!("{what} took its session; there is none"));
            }
            Event::Accepted { link, .. } => {
                newest.insert(link.client, link.connection);
            }
            Event::Ended { link, end: End::LeftOpen } => {
                open.insert(*link);
            }
            Event::Stray { link, what: "subscribes" }
                if newest.get(&link.client).is_some_and(|newest| *newest > link.connection) =>
            {
                asked_late.insert(*link);
            }
            Event::Stray { link, what: "was granted a subscription" }
                if asked_late.contains(link) && lasting.contains(link) =>
            {
                let Link { client, connection } = link;
                let what = format!("client {client}: connection {connection} got a subscription at {index}");
                findings.add("ownership", format!("{what}, long after a later one was accepted"));
            }
            Event::Stray { link, what: "was closed" } => {
                open.remove(link);
            }
            _ => {}
        }
    }
    for Link { client, connection } in open {
        if is_at_rest && newest.get(&client).is_some_and(|newest| *newest > connection) {
            findings.add("ownership", format!("client {client}: connection {connection} was never closed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{asked, connect, ended, found, history, link};
    use super::*;

    fn wrong(expiry_s: u32, strays: &[&'static str]) -> usize {
        let mut events: Vec<Event> = connect(1, 0, asked(true, expiry_s), false).into();
        events.push(ended(1, 0, End::LeftOpen));
        events.extend(connect(1, 1, asked(true, 0), false));
        events.extend(strays.iter().map(|&what| Event::Stray { link: link(1, 0), what }));
        found(|f| check(&history(events), true, f)).len()
    }

    #[test]
    fn an_old_connection_that_is_served_or_stays_is_found() {
        assert_eq!(wrong(60, &["was closed"]), 0);
        assert_eq!(wrong(60, &["subscribes", "was told to go", "was closed"]), 0);
        assert_eq!(wrong(60, &["subscribes", "was granted a subscription", "was closed"]), 1);
        assert_eq!(wrong(0, &["subscribes", "was granted a subscription", "was closed"]), 0);
        assert_eq!(wrong(60, &[]), 1);
        assert_eq!(wrong(0, &[]), 1);
    }

    #[test]
    fn a_connection_that_is_taken_over_by_nobody_is_found() {
        let taken_over = |connection| ended(1, connection, End::Closed(Some(TAKEN_OVER)));
        let told = |before: Vec<Event>, after: Vec<Event>| {
            let accepted = connect(1, 1, asked(true, 60), false).into();
            let events = [before, accepted, vec![taken_over(1)], after].concat();
            found(|f| check(&history(events), true, f)).len()
        };
        assert_eq!(told(vec![], vec![]), 1);
        let refused = vec![connect(1, 0, asked(true, 60), false)[0].clone(), ended(1, 0, End::GaveUp)];
        assert_eq!(told(refused, vec![]), 0, "that claim may have landed now");
        let mut events: Vec<Event> = connect(1, 0, asked(true, 60), false).into();
        events.extend(connect(1, 1, asked(true, 60), true));
        events.push(taken_over(0));
        assert_eq!(found(|f| check(&history(events), true, f)).len(), 0);
    }
}
