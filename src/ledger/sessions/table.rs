//! Sessions by number, and their numbers by name.
//!
//! A million sessions in a tree would cost thirty cache misses for each record. The numbers are given in the order of the
//! log, so iterating over them is the same in every replay of the same records.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, Hasher};

use slab::Slab;

use super::client::Client;
use crate::ledger::record::ClientKey;

/// Names a session inside a ledger, as long as it has records.
pub(super) type Number = u32;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Never iterated.
    numbers: HashMap<ClientKey, Number, Seed>,
    clients: Slab<(ClientKey, Client)>,
}

/// A hash that is the same in every process would let clients choose ids that collide.
#[derive(Clone, Debug, Default)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Table {
    pub(super) fn with_seed(seed: u64) -> Self {
        Self { numbers: HashMap::with_hasher(Seed(seed)), clients: Slab::new() }
    }

    pub(super) fn find(&self, subject: &[u8]) -> Option<Number> {
        self.numbers.get(subject).copied()
    }

    pub(super) fn get(&self, client: &ClientKey) -> Option<&Client> {
        self.at(*self.numbers.get(client)?).map(|(_, client)| client)
    }

    pub(super) fn at(&self, number: Number) -> Option<&(ClientKey, Client)> {
        self.clients.get(number as usize)
    }

    pub(super) fn at_mut(&mut self, number: Number) -> Option<&mut (ClientKey, Client)> {
        self.clients.get_mut(number as usize)
    }

    /// A session that is not there yet; `None` if there are as many as there can be.
    pub(super) fn insert(&mut self, client: ClientKey) -> Option<Number> {
        let number = Number::try_from(self.clients.vacant_key()).ok()?;
        self.clients.insert((client.clone(), Client::default()));
        self.numbers.insert(client, number);
        Some(number)
    }

    pub(super) fn remove(&mut self, number: Number) {
        if let Some((client, _)) = self.clients.try_remove(number as usize) {
            self.numbers.remove(&client);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(ClientKey, Client)> {
        self.clients.iter().map(|(_, entry)| entry)
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }
}
