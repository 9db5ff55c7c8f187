//! Which QoS 2 publishes of earlier connections are in the log (Q2, Q4): what is known of each lower nonce, and what is
//! learned.

use crate::ledger::ids::{Nonce, Place, Token};
use crate::ledger::state::{Inbound, Unresolved};
use crate::mqtt::PacketId;

/// Notes that every token with this id was released (Q4).
pub(super) fn release(unresolved: &mut [Unresolved], packet_id: PacketId) {
    for entry in unresolved {
        if let Err(index) = entry.released.binary_search(&packet_id) {
            entry.released.insert(index, packet_id);
        }
    }
}

/// A partition was looked through. Returns the ids that are in the log and not released.
pub(super) fn look(unresolved: &mut [Unresolved], place: Place, tokens: &[Token]) -> Vec<PacketId> {
    let mut found = Vec::new();
    for entry in unresolved {
        // What was found there before is held, or released since.
        let Err(index) = entry.looked.binary_search(&place) else { continue };
        entry.looked.insert(index, place);
        let own = tokens.iter().filter(|token| token.nonce == entry.nonce);
        found.extend(own.filter(|token| is_live(entry, token)).filter_map(|token| PacketId::new(token.packet_id)));
    }
    found
}

fn is_live(entry: &Unresolved, token: &Token) -> bool {
    let is_open = token.number > entry.high || entry.pending.iter().any(|&(number, _)| number == token.number);
    is_open && PacketId::new(token.packet_id).is_some_and(|id| entry.released.binary_search(&id).is_err())
}

/// Nonces ended and said what they hold. Returns the ids that are in the log and not released.
///
/// The youngest is asked first: what it learned of older ones is newer than what they said themselves.
pub(super) fn settle(unresolved: &mut Vec<Unresolved>, ended: &[(Nonce, Option<Inbound>)]) -> Vec<PacketId> {
    let mut found = Vec::new();
    let nonces: Vec<_> = unresolved.iter().map(|entry| entry.nonce).collect();
    for nonce in nonces.into_iter().rev() {
        let Some(index) = unresolved.iter().position(|entry| entry.nonce == nonce) else { continue };
        let said = ended.iter().find(|(who, _)| *who == nonce).and_then(|(_, said)| said.as_ref());
        // Somebody who looked for its tokens knows more than it did.
        let is_new = unresolved.get(index).is_some_and(|entry| entry.looked.is_empty());
        let Some(said) = said.filter(|said| is_new && said.pending.is_empty()) else { continue };
        let entry = unresolved.remove(index);
        found.extend(said.held.iter().filter(|id| entry.released.binary_search(id).is_err()));
        let mut older = unresolved.drain(..index).collect::<Vec<_>>();
        older.retain_mut(|entry| match said.unresolved.iter().find(|known| known.nonce == entry.nonce) {
            Some(known) => {
                merge(&mut entry.released, &known.released);
                merge(&mut entry.looked, &known.looked);
                true
            }
            None => false,
        });
        unresolved.splice(0..0, older);
    }
    found
}

fn merge<T: Copy + Ord>(into: &mut Vec<T>, more: &[T]) {
    into.extend_from_slice(more);
    into.sort_unstable();
    into.dedup();
}
