//! Which rules can win a topic that a filter matches.
//!
//! Topics are walked level by level. Of all texts a level may have, only those that rules or the filter spell out
//! differ from each other; one more stands for all the rest. A state is the depth and the rules still possible.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::pattern::{Level, Pattern, Tail};
use crate::mqtt::TopicFilter;

/// After so many states the rules still open count as winners.
const STATES_MAX: usize = 4_096;

/// The topics asked about.
#[derive(Debug)]
pub(super) struct Wanted<'f> {
    /// `None` is any text.
    levels: SmallVec<[Option<&'f str>; 16]>,
    tail: Tail,
}

impl<'f> Wanted<'f> {
    pub(super) fn from_filter(filter: &'f TopicFilter) -> Self {
        let mut levels: SmallVec<[_; 16]> = filter.levels().map(|l| (l != "+").then_some(l)).collect();
        let multi = levels.last() == Some(&Some("#"));
        if multi {
            levels.pop();
        }
        Self { levels, tail: if multi { Tail::Multi } else { Tail::End } }
    }

    pub(super) fn from_pattern(pattern: &'f Pattern) -> Self {
        let text = |level: &'f Level| match level {
            Level::Literal(text) => Some(&**text),
            Level::Any { .. } => None,
        };
        Self { levels: pattern.levels.iter().map(text).collect(), tail: pattern.tail }
    }

    /// Whether a topic may end after `depth` levels.
    fn accepts(&self, depth: usize) -> bool {
        ends_at(self.levels.len(), self.tail, depth)
    }

    /// Whether a topic may be longer than `depth` levels.
    fn goes_on(&self, depth: usize) -> bool {
        self.tail != Tail::End || depth < self.levels.len()
    }
}

/// The indexes of the rules that win some topic of `wanted`; `rules.len()` stands for no rule.
pub(super) fn winners(rules: &[&Pattern], wanted: &Wanted<'_>) -> BTreeSet<usize> {
    let mut walk = Walk { rules, wanted, seen: BTreeSet::new(), winners: BTreeSet::new() };
    walk.visit(&State { depth: 0, empty: false, open: (0..rules.len()).collect() });
    walk.winners
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    depth: usize,
    /// The levels so far are one empty level: as a whole topic that is none [MQTT-4.7.3-1].
    empty: bool,
    /// The rules that the levels so far allow, in order.
    open: SmallVec<[usize; 8]>,
}

struct Walk<'w, 'f> {
    rules: &'w [&'w Pattern],
    wanted: &'w Wanted<'f>,
    seen: BTreeSet<State>,
    winners: BTreeSet<usize>,
}

impl<'w> Walk<'w, '_> {
    /// `wanted` allows the levels so far.
    fn visit(&mut self, state: &State) {
        let depth = state.depth;
        let ends = self.wanted.accepts(depth) && depth > 0 && !state.empty;
        let first = state.open.first().copied().unwrap_or(self.rules.len());
        if depth > 0 && self.takes_all(first, depth) {
            if ends || self.wanted.goes_on(depth) {
                self.winners.insert(first);
            }
            return;
        }
        if ends {
            let winner = state.open.iter().copied().find(|&n| self.rule_ends(n, depth));
            self.winners.insert(winner.unwrap_or(self.rules.len()));
        }
        if !self.wanted.goes_on(depth) || self.winners.len() > self.rules.len() || !self.seen.insert(state.clone()) {
            return;
        }
        if self.seen.len() > STATES_MAX {
            self.winners.extend(state.open.iter().copied().chain([self.rules.len()]));
            return;
        }
        if let Some(&Some(text)) = self.wanted.levels.get(depth) {
            return self.visit(&self.next(state, Some(text)));
        }
        let texts: BTreeSet<_> = state.open.iter().filter_map(|&n| self.text(n, depth)).collect();
        for text in texts.into_iter().filter(|text| depth > 0 || !text.starts_with('$')) {
            self.visit(&self.next(state, Some(text)));
        }
        self.visit(&self.next(state, None));
    }

    /// One level on; `None` is a text that no rule spells out here, and does not begin with `$`.
    fn next(&self, state: &State, text: Option<&str>) -> State {
        let depth = state.depth;
        let dollar = depth == 0 && text.is_some_and(|text| text.starts_with('$'));
        let allows = |n: &usize| {
            let Some(rule) = self.rules.get(*n) else { return false };
            match rule.levels.get(depth) {
                Some(Level::Literal(literal)) => text == Some(&**literal),
                Some(Level::Any { .. }) => !dollar,
                None => rule.tail != Tail::End && !dollar,
            }
        };
        let mut open: SmallVec<[usize; 8]> = state.open.iter().copied().filter(allows).collect();
        // Nothing is left for the rules behind one that takes all.
        if let Some(at) = open.iter().position(|&n| self.takes_all(n, depth + 1)) {
            open.truncate(at + 1);
        }
        State { depth: depth + 1, empty: depth == 0 && text == Some(""), open }
    }

    fn text(&self, rule: usize, depth: usize) -> Option<&'w str> {
        match self.rules.get(rule)?.levels.get(depth)? {
            Level::Literal(text) => Some(text),
            Level::Any { .. } => None,
        }
    }

    fn rule_ends(&self, rule: usize, depth: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| ends_at(rule.levels.len(), rule.tail, depth))
    }

    /// Whether an open rule matches whatever follows; no rule does.
    fn takes_all(&self, rule: usize, depth: usize) -> bool {
        self.rules.get(rule).is_none_or(|r| r.tail != Tail::End && ends_at(r.levels.len(), r.tail, depth))
    }
}

fn ends_at(levels: usize, tail: Tail, depth: usize) -> bool {
    match tail {
        Tail::End => depth == levels,
        Tail::Multi => depth >= levels,
        Tail::Rest => depth > levels,
    }
}
