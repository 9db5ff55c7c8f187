//! Filters with wildcards: a tree of levels, its nodes in one vector, its edges in one table.

use smallvec::SmallVec;

use super::index::{Index, NONE, hash_pair, take_slot};
use super::levels::Levels;
use super::subscribers::Subscribers;
use crate::mqtt::TopicFilter;

const ROOT: u32 = 0;
/// Level numbers of wildcard nodes; no level text has them.
const PLUS: u32 = NONE - 1;
const MULTI: u32 = NONE - 2;
/// Topics of more levels cost an allocation.
const LEVELS_INLINE: usize = 32;

#[derive(Debug)]
pub(super) struct Wild<S, V> {
    seed: u64,
    levels: Levels,
    /// (parent, level) → node, literal levels only.
    edges: Index,
    /// Empty, or the root and its descendants.
    nodes: Vec<Node<S, V>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Node<S, V> {
    parent: u32,
    /// Of the edge that leads here.
    level: u32,
    /// Child for `+`.
    plus: u32,
    /// Child for `#`; it has no children.
    multi: u32,
    /// Number of children for literal levels.
    literals: u32,
    subscribers: Subscribers<S, V>,
}

impl<S, V> Node<S, V> {
    fn new(parent: u32, level: u32) -> Self {
        Self { parent, level, plus: NONE, multi: NONE, literals: 0, subscribers: Subscribers::None }
    }

    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.plus == NONE && self.multi == NONE && self.literals == 0
    }
}

impl<S, V> Wild<S, V> {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, levels: Levels::new(seed), edges: Index::default(), nodes: Vec::new(), free: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn heap_entries(&self) -> usize {
        self.nodes.capacity() + self.free.capacity() + self.levels.heap_entries()
    }

    fn node(&self, number: u32) -> Option<&Node<S, V>> {
        self.nodes.get(number as usize)
    }

    fn child(&self, parent: u32, level: u32) -> Option<u32> {
        let is = |n| self.node(n).is_some_and(|node| node.parent == parent && node.level == level);
        self.edges.find(hash_pair(self.seed, parent, level), is)
    }

    /// The child of `parent` for one level of a filter.
    fn step(&self, parent: u32, level: &str) -> Option<u32> {
        let node = self.node(parent)?;
        let child = match level {
            "+" => node.plus,
            "#" => node.multi,
            text => self.child(parent, self.levels.number(text))?,
        };
        (child != NONE).then_some(child)
    }

    fn grow(&mut self, parent: u32, level: &str) -> u32 {
        let number = match level {
            "+" => PLUS,
            "#" => MULTI,
            text => self.levels.acquire(text),
        };
        let child = take_slot(&mut self.nodes, &mut self.free, Node::new(parent, number));
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            match number {
                PLUS => node.plus = child,
                MULTI => node.multi = child,
                _ => {
                    node.literals += 1;
                    self.edges.insert(hash_pair(self.seed, parent, number), child);
                }
            }
        }
        child
    }

    /// Takes away a node without subscribers and children, then its parent if that has become such a one.
    fn prune(&mut self, mut number: u32) {
        while let Some(node) = self.node(number)
            && number != ROOT
            && node.is_idle()
        {
            let (parent, level) = (node.parent, node.level);
            if let Some(parent) = self.nodes.get_mut(parent as usize) {
                match level {
                    PLUS => parent.plus = NONE,
                    MULTI => parent.multi = NONE,
                    _ => parent.literals -= 1,
                }
            }
            if level < MULTI {
                self.edges.remove(hash_pair(self.seed, parent, level), number);
                self.levels.release(level);
            }
            self.free.push(number);
            number = parent;
        }
        if self.node(ROOT).is_some_and(Node::is_idle) {
            *self = Self::new(self.seed);
        }
    }
}

impl<S: Copy + Ord, V> Wild<S, V> {
    pub(super) fn insert(&mut self, filter: &TopicFilter, subscriber: S, value: V) -> Option<V> {
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(NONE, NONE));
        }
        let mut at = ROOT;
        for level in filter.levels() {
            at = self.step(at, level).unwrap_or_else(|| self.grow(at, level));
        }
        self.nodes.get_mut(at as usize)?.subscribers.insert(subscriber, value)
    }

    pub(super) fn remove(&mut self, filter: &TopicFilter, subscriber: S) -> Option<V> {
        let at = filter.levels().try_fold(ROOT, |at, level| self.step(at, level))?;
        let value = self.nodes.get_mut(at as usize)?.subscribers.remove(subscriber)?;
        self.prune(at);
        Some(value)
    }

    pub(super) fn matches<'t>(&'t self, topic: &str, found: &mut impl FnMut(S, &'t V)) {
        if self.nodes.is_empty() {
            return;
        }
        let levels: SmallVec<[u32; LEVELS_INLINE]> = topic.split('/').map(|text| self.levels.number(text)).collect();
        let dollar = topic.starts_with('$');
        // At most one node waits per level, plus the one at hand.
        let mut waiting: SmallVec<[(u32, usize); LEVELS_INLINE + 1]> = SmallVec::new();
        waiting.push((ROOT, 0));
        while let Some((number, depth)) = waiting.pop() {
            let Some(node) = self.node(number) else { continue };
            let wildcards = depth > 0 || !dollar;
            if wildcards && let Some(multi) = self.node(node.multi) {
                multi.subscribers.each(found);
            }
            let Some(&level) = levels.get(depth) else {
                node.subscribers.each(found);
                continue;
            };
            if wildcards && node.plus != NONE {
                waiting.push((node.plus, depth + 1));
            }
            if level != NONE
                && node.literals > 0
                && let Some(child) = self.child(number, level)
            {
                waiting.push((child, depth + 1));
            }
        }
    }
}
