//! Damping of client ids that are fought over: two clients with one id would take it from each other for ever.

use std::collections::HashMap;

use crate::ledger::record::ClientKey;

/// Take-overs of one client id are counted over so long.
const FIGHT_MS: i64 = 10_000;
/// The first claim after too many of them waits twice so long, later ones twice as long each.
const FIGHT_PAUSE_MS: i64 = 500;
/// The longest pause.
const FIGHT_PAUSE_MS_MAX: i64 = 4_000;
/// Client ids whose take-overs are counted.
const FIGHTS_MAX: usize = 100_000;

/// Who is taken from a live connection too often. A client that comes and goes fights nobody.
#[derive(Debug, Default)]
pub(super) struct Fights {
    /// Start of the window, take-overs in it.
    counts: HashMap<ClientKey, (i64, u32)>,
}

impl Fights {
    /// A live connection lost this client id.
    pub(super) fn count(&mut self, client: &ClientKey, now_ms: i64) {
        if self.counts.len() >= FIGHTS_MAX {
            self.counts.retain(|_, (since_ms, _)| *since_ms > now_ms - FIGHT_MS);
            if self.counts.len() >= FIGHTS_MAX {
                return;
            }
        }
        let count = self.counts.entry(client.clone()).or_insert((now_ms, 0));
        if count.0 <= now_ms - FIGHT_MS {
            *count = (now_ms, 0);
        }
        count.1 += 1;
    }

    /// How long the next claim has to wait.
    pub(super) fn pause_ms(&self, client: &ClientKey, now_ms: i64, take_overs_max: u32) -> i64 {
        let Some((since_ms, take_overs)) = self.counts.get(client) else { return 0 };
        let too_many = take_overs.saturating_sub(take_overs_max);
        if too_many == 0 || *since_ms <= now_ms - FIGHT_MS {
            return 0;
        }
        FIGHT_PAUSE_MS.saturating_mul(1 << too_many.min(3)).min(FIGHT_PAUSE_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_that_is_fought_over_waits_longer_each_time_and_is_forgiven_later() {
        let (client, other) = (ClientKey::new("", "c"), ClientKey::new("", "d"));
        let mut fights = Fights::default();
        (0..5).for_each(|_| fights.count(&client, 1_000));
        assert_eq!(fights.pause_ms(&client, 1_000, 5), 0);
        fights.count(&client, 1_000);
        let first = fights.pause_ms(&client, 1_000, 5);
        fights.count(&client, 1_000);
        assert!(0 < first && first < fights.pause_ms(&client, 1_000, 5));
        assert_eq!(fights.pause_ms(&other, 1_000, 5), 0);
        assert_eq!(fights.pause_ms(&client, 1_000 + FIGHT_MS, 5), 0);
    }
}
