//! Of a session that ended long ago nothing is left in the log.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use millrace::ledger::record::ClientKey;

use super::Findings;
use crate::history::{Entry, Event, History};
use crate::log_view::LogView;

/// A session that is over is removed within this time.
const LIMIT_MS: u64 = 70_000;

pub(crate) fn check(history: &History, log: &LogView, findings: &mut Findings) {
    let over_ms = history.entries.last().map_or(0, |entry| entry.at_ms);
    let mut expiry_s: BTreeMap<usize, u32> = BTreeMap::new();
    let mut ended_ms: BTreeMap<usize, u64> = BTreeMap::new();
    for Entry { at_ms, event } in &history.entries {
        match event {
            Event::Connecting { link, asked } => {
                let longest = expiry_s.entry(link.client).or_default();
                *longest = (*longest).max(asked.expiry_s);
                ended_ms.remove(&link.client);
            }
            Event::Ended { link, .. } => {
                ended_ms.insert(link.client, *at_ms);
            }
            _ => {}
        }
    }
    for (client, ended_ms) in ended_ms {
        let kept_ms = expiry_s.get(&client).map_or(0, |longest| u64::from(*longest) * 1_000);
        let left = log.sessions.values().filter(|whose| **whose == subject(client)).count();
        if ended_ms + kept_ms + LIMIT_MS < over_ms && left > 0 {
            findings
                .add("litter", format!("the session of client {client} is over, and {left} records of it are left"));
        }
    }
}

/// How the keys of a client's session name it.
fn subject(client: usize) -> Vec<u8> {
    let key = ClientKey::new("", &format!("client-{client}"));
    Borrow::<[u8]>::borrow(&key).to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::made::{asked, connect, ended, found};
    use super::*;
    use crate::history::End;

    #[test]
    fn a_session_that_is_never_removed_is_found() {
        let mut history = History::default();
        connect(1, 0, asked(true, 10), false).into_iter().for_each(|event| history.push(0, event));
        history.push(1_000, ended(1, 0, End::Cut));
        let sessions = BTreeMap::from([(b"key".to_vec(), subject(1))]);
        let wrong = |over_ms, sessions: &BTreeMap<Vec<u8>, Vec<u8>>, more: &[Event]| {
            let mut history = history.clone();
            more.iter().cloned().for_each(|event| history.push(over_ms, event));
            history.push(over_ms, Event::Phase("over"));
            let log = LogView { sessions: sessions.clone(), ..LogView::default() };
            found(|f| check(&history, &log, f)).len()
        };
        assert_eq!(wrong(200_000, &sessions, &[]), 1);
        assert_eq!(wrong(20_000, &sessions, &[]), 0, "it may still be there");
        assert_eq!(wrong(200_000, &BTreeMap::new(), &[]), 0);
        assert_eq!(wrong(200_000, &sessions, &connect(1, 1, asked(false, 10), true)), 0, "the client is back");
    }
}
