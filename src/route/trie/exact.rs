//! Filters without wildcards: found by the whole topic.

use super::index::{Index, hash_text, take_slot};
use super::subscribers::Subscribers;
use crate::mqtt::TopicFilter;

#[derive(Debug)]
pub(super) struct Exact<S, V> {
    seed: u64,
    index: Index,
    entries: Vec<Entry<S, V>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<S, V> {
    /// Shares the text with whoever else holds the filter; `None` while the entry is free.
    filter: Option<TopicFilter>,
    subscribers: Subscribers<S, V>,
}

impl<S, V> Exact<S, V> {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, index: Index::default(), entries: Vec::new(), free: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn heap_entries(&self) -> usize {
        self.entries.capacity() + self.free.capacity()
    }

    fn find(&self, hash: u32, topic: &str) -> Option<u32> {
        self.index.find(hash, |entry| {
            let filter = self.entries.get(entry as usize).and_then(|e| e.filter.as_ref());
            filter.is_some_and(|f| f.as_str() == topic)
        })
    }
}

impl<S: Copy + Ord, V> Exact<S, V> {
    pub(super) fn insert(&mut self, filter: &TopicFilter, subscriber: S, value: V) -> Option<V> {
        let hash = hash_text(self.seed, filter.as_str());
        let number = self.find(hash, filter.as_str()).unwrap_or_else(|| {
            let entry = Entry { filter: Some(filter.clone()), subscribers: Subscribers::None };
            let number = take_slot(&mut self.entries, &mut self.free, entry);
            self.index.insert(hash, number);
            number
        });
        self.entries.get_mut(number as usize)?.subscribers.insert(subscriber, value)
    }

    pub(super) fn remove(&mut self, filter: &TopicFilter, subscriber: S) -> Option<V> {
        let hash = hash_text(self.seed, filter.as_str());
        let number = self.find(hash, filter.as_str())?;
        let entry = self.entries.get_mut(number as usize)?;
        let value = entry.subscribers.remove(subscriber)?;
        if entry.subscribers.is_empty() {
            entry.filter = None;
            self.index.remove(hash, number);
            self.free.push(number);
            if self.free.len() == self.entries.len() {
                *self = Self::new(self.seed);
            }
        }
        Some(value)
    }

    pub(super) fn matches<'t>(&'t self, topic: &str, found: &mut impl FnMut(S, &'t V)) {
        if self.entries.is_empty() {
            return;
        }
        let number = self.find(hash_text(self.seed, topic), topic);
        if let Some(entry) = number.and_then(|n| self.entries.get(n as usize)) {
            entry.subscribers.each(found);
        }
    }
}
