//! Breadth-first search over every reachable state of a small model.
//!
//! Only a 64-bit hash of each state is remembered, with the number of the step that led to it. A counterexample is
//! therefore the shortest there is, and it is found again by walking the steps from the initial state.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A search that reaches more states than this has proved nothing.
const STATES_MAX: usize = 3_000_000;

/// What is searched: rules and an adversary.
pub trait Model {
    /// One state. It is compared by its hash alone, so what has no order must be kept in one (see `List::insert`).
    type State: Clone + Hash;

    /// Where the search begins.
    fn initial(&self) -> Self::State;

    /// Everything that can happen next.
    fn steps(&self, state: &Self::State, out: &mut Steps<Self::State>);

    /// A sentence, if a safety property is violated in this state.
    fn broken(&self, _state: &Self::State) -> Option<String> {
        None
    }

    /// A sentence, if this must not be the end. Asked only where nothing but steps of the world lead on: nothing is in
    /// flight and nobody is busy.
    fn at_rest(&self, _state: &Self::State) -> Option<String> {
        None
    }
}

/// The states that follow one state, as a model hands them out.
pub struct Steps<S> {
    next: Vec<S>,
    busy: bool,
    /// Where the labels go; nobody wants them, and they are not made, before a trace is printed.
    labels: Option<Vec<String>>,
}

impl<S> Steps<S> {
    /// A step that a node or Kafka takes sooner or later.
    pub fn will(&mut self, next: S, label: impl FnOnce() -> String) {
        self.step(true, next, label);
    }

    /// A step that the world may take or not: a crash, a new message, a lost connection.
    pub fn may(&mut self, next: S, label: impl FnOnce() -> String) {
        self.step(false, next, label);
    }

    /// One of the two: `certain` says whether the step is taken sooner or later.
    pub fn step(&mut self, certain: bool, next: S, label: impl FnOnce() -> String) {
        self.busy |= certain;
        self.next.push(next);
        if let Some(labels) = &mut self.labels {
            labels.push(format!("{}{}", if certain { "" } else { "? " }, label()));
        }
    }
}

/// The property that does not hold, and the shortest way there.
pub struct Counterexample {
    /// What `Model::broken` or `Model::at_rest` said.
    pub why: String,
    /// The labels of the steps from the initial state.
    pub trace: Vec<String>,
}

impl Counterexample {
    fn printed(&self) -> String {
        let mut text = self.why.clone();
        for (number, label) in (1..).zip(&self.trace) {
            let _ = write!(text, "\n    {number:2} {label}");
        }
        text
    }
}

/// The rules hold in every reachable state, and there are as many as there were when the bounds were chosen: a model
/// that suddenly reaches fewer states has lost a part of its adversary.
#[track_caller]
pub fn passes<M: Model>(model: &M, states: usize) {
    let (reached, found) = explore(model);
    if let Some(found) = found {
        panic!("must pass, {reached} states: {}", found.printed());
    }
    assert_eq!(reached, states, "number of reachable states");
}

/// The broken rule is seen: the shortest counterexample ends with this property violated, after so many steps.
#[track_caller]
pub fn fails<M: Model>(model: &M, why: &str, steps: usize) {
    let (reached, found) = explore(model);
    let Some(found) = found else { panic!("must fail with {why}, but {reached} states are all good") };
    let as_expected = found.why.starts_with(why) && found.trace.len() == steps;
    assert!(as_expected, "must fail with {why} after {steps} steps, but fails otherwise: {}", found.printed());
}

fn explore<M: Model>(model: &M) -> (usize, Option<Counterexample>) {
    let initial = model.initial();
    let mut seen = HashSet::<u64, BuildHasherDefault<Same>>::default();
    seen.insert(fingerprint(&initial));
    // For every state in the order of discovery: which state it was found from, and by which of its steps.
    let mut came_from = vec![(0, 0)];
    let mut queue = VecDeque::from([initial]);
    let mut out = Steps { next: Vec::new(), busy: false, labels: None };
    let mut number = 0;
    while let Some(state) = queue.pop_front() {
        let mut why = model.broken(&state);
        if why.is_none() {
            out.busy = false;
            model.steps(&state, &mut out);
            for (step, next) in out.next.drain(..).enumerate() {
                if seen.insert(fingerprint(&next)) {
                    came_from.push((number, step));
                    queue.push_back(next);
                }
            }
            why = if out.busy { None } else { model.at_rest(&state) };
        }
        if let Some(why) = why {
            return (seen.len(), Some(Counterexample { why, trace: trace_to(number, &came_from, model) }));
        }
        assert!(seen.len() <= STATES_MAX, "more than {STATES_MAX} states: nothing is proved");
        number += 1;
    }
    (seen.len(), None)
}

fn trace_to<M: Model>(mut number: usize, came_from: &[(usize, usize)], model: &M) -> Vec<String> {
    let mut path = Vec::new();
    while number > 0 {
        let (parent, step) = came_from[number];
        path.push(step);
        number = parent;
    }
    let mut state = model.initial();
    let mut trace = Vec::new();
    for step in path.into_iter().rev() {
        let mut out = Steps { next: Vec::new(), busy: false, labels: Some(Vec::new()) };
        model.steps(&state, &mut out);
        state = out.next.swap_remove(step);
        trace.extend(out.labels.map(|mut labels| labels.swap_remove(step)));
    }
    trace
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Mixed(0x9e37_79b9_7f4a_7c15);
    state.hash(&mut hasher);
    hasher.finish()
}

/// A quick hash. Each round is a bijection of what was there before, so only chance makes two states collide.
struct Mixed(u64);

impl Mixed {
    fn mix(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = product ^ (product >> 32);
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    /// Which variant of an enum it is.
    fn write_isize(&mut self, value: isize) {
        self.mix(value.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The hash of a fingerprint: it is one already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a fingerprint is one u64")
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
