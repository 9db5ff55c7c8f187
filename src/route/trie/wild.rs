//! Filters with wildcards: a tree of levels, its nodes in one vector, its edges in one table.

use smallvec::SmallVec;

use super::index::{Index, NONE, hash_pair, take_slot};
use super::levels::Levels;
use super::subscribers::Subscribers;
use crate::mqtt::TopicFilter;

const ROOT: u32 = 0;
/// Level number of a node for `+`; no level text has it.
const PLUS: u32 = NONE - 1;
/// Topics of more levels cost an allocation.
const LEVELS_INLINE: usize = 32;

#[derive(Debug)]
pub(super) struct Wild<S, V> {
    seed: u64,
    levels: Levels,
    /// (parent, level) → node, literal levels only.
    edges: Index,
    /// Empty, or the root and its descendants.
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    /// The subscribers of each filter, away from the nodes: most nodes are on the way to one, not the end of one.
    ends: Vec<Subscribers<S, V>>,
    free_ends: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// Of the edge that leads here.
    level: u32,
    /// Child for `+`.
    plus: u32,
    /// Number of children for literal levels.
    literals: u32,
    /// Subscribers of the filter that ends here.
    here: u32,
    /// Subscribers of the filter that goes on with `#`.
    below: u32,
}

/// Which of a node's two filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Here,
    Below,
}

impl Node {
    fn new(parent: u32, level: u32) -> Self {
        Self { parent, level, plus: NONE, literals: 0, here: NONE, below: NONE }
    }

    fn is_idle(&self) -> bool {
        self.here == NONE && self.below == NONE && self.plus == NONE && self.literals == 0
    }

    fn end(&mut self, end: End) -> &mut u32 {
        match end {
            End::Here => &mut self.here,
            End::Below => &mut self.below,
        }
    }
}

impl<S, V> Wild<S, V> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            levels: Levels::new(seed),
            edges: Index::default(),
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            ends: Vec::new(),
            free_ends: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn heap_entries(&self) -> usize {
        let own = [self.nodes.capacity(), self.free_nodes.capacity(), self.ends.capacity(), self.free_ends.capacity()];
        own.iter().sum::<usize>() + self.levels.heap_entries()
    }

    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    fn child(&self, parent: u32, level: u32) -> Option<u32> {
        let is = |n| self.node(n).is_some_and(|node| node.parent == parent && node.level == level);
        self.edges.find(hash_pair(self.seed, parent, level), is)
    }

    /// The child of `parent` for one level of a filter, `#` excepted.
    fn step(&self, parent: u32, level: &str) -> Option<u32> {
        if level == "+" {
            return self.node(parent).map(|node| node.plus).filter(|&child| child != NONE);
        }
        self.child(parent, self.levels.number(level))
    }

    fn grow(&mut self, parent: u32, level: &str) -> u32 {
        let number = if level == "+" { PLUS } else { self.levels.acquire(level) };
        let child = take_slot(&mut self.nodes, &mut self.free_nodes, Node::new(parent, number));
        if number != PLUS {
            self.edges.insert(hash_pair(self.seed, parent, number), child);
        }
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            if number == PLUS {
                node.plus = child;
            } else {
                node.literals += 1;
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
                if level == PLUS {
                    parent.plus = NONE;
                } else {
                    parent.literals -= 1;
                }
            }
            if level != PLUS {
                self.edges.remove(hash_pair(self.seed, parent, level), number);
                self.levels.release(level);
            }
            self.free_nodes.push(number);
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
        let (levels, end) = split(filter);
        let mut at = ROOT;
        for level in levels.into_iter().flat_map(|levels| levels.split('/')) {
            at = self.step(at, level).unwrap_or_else(|| self.grow(at, level));
        }
        let number = self.nodes.get_mut(at as usize)?.end(end);
        if *number == NONE {
            *number = take_slot(&mut self.ends, &mut self.free_ends, Subscribers::None);
        }
        self.ends.get_mut(*number as usize)?.insert(subscriber, value)
    }

    pub(super) fn remove(&mut self, filter: &TopicFilter, subscriber: S) -> Option<V> {
        let (levels, end) = split(filter);
        let mut levels = levels.into_iter().flat_map(|levels| levels.split('/'));
        let at = levels.try_fold(ROOT, |at, level| self.step(at, level))?;
        let number = self.nodes.get_mut(at as usize)?.end(end);
        let subscribers = self.ends.get_mut(*number as usize)?;
        let value = subscribers.remove(subscriber)?;
        if subscribers.is_empty() {
            self.free_ends.push(*number);
            *number = NONE;
            self.prune(at);
        }
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
            if wildcards && let Some(below) = self.ends.get(node.below as usize) {
                below.each(found);
            }
            let Some(&level) = levels.get(depth) else {
                if let Some(here) = self.ends.get(node.here as usize) {
                    here.each(found);
                }
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

/// The levels before a `#`, none for `#` alone, and which filter of their node is meant.
fn split(filter: &TopicFilter) -> (Option<&str>, End) {
    let text = filter.as_str();
    match text.strip_suffix('#') {
        None => (Some(text), End::Here),
        Some(levels) => (levels.strip_suffix('/'), End::Below),
    }
}
