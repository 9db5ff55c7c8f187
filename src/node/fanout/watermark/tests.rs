//! W1 to W3 as properties of the rounds.

use std::cell::RefCell;

use super::*;
use crate::node::mailbox::NO_TICK;

const P: Place = Place { topic: 1, partition: 0 };

fn connection(number: u64) -> ConnectionId {
    ConnectionId::from_u64(number)
}

/// The rounds with what each session has not acknowledged: the ticks of it.
#[derive(Default)]
struct Stage {
    rounds: Watermarks,
    unacked: RefCell<BTreeMap<ConnectionId, Vec<u32>>>,
}

impl Stage {
    fn with(sessions: &[(u64, Standing)]) -> Self {
        let mut stage = Self::default();
        for &(number, standing) in sessions {
            stage.rounds.add(connection(number), standing);
        }
        stage
    }

    fn push(&self, number: u64) {
        self.unacked.borrow_mut().entry(connection(number)).or_default().push(self.rounds.tick());
    }

    fn push_old(&self, number: u64) {
        self.unacked.borrow_mut().entry(connection(number)).or_default().push(BEFORE_ALL_TICKS);
    }

    fn ack_all(&self, number: u64) {
        self.unacked.borrow_mut().remove(&connection(number));
    }

    fn tick(&mut self, tail: i64) -> Decision {
        let unacked = self.unacked.borrow();
        let oldest = |connection| {
            Some(unacked.get(&connection).and_then(|ticks: &Vec<u32>| ticks.iter().copied().min()).unwrap_or(NO_TICK))
        };
        self.rounds.on_tick(vec![(P, tail)], oldest)
    }
}

fn emitted(decision: &Decision) -> Option<i64> {
    decision.emit.as_ref().map(|done| done[0].1)
}

#[test]
fn a_sample_goes_out_one_tick_later() {
    let mut stage = Stage::with(&[(1, Standing::Following)]);
    assert_eq!(emitted(&stage.tick(10)), None);
    assert_eq!(emitted(&stage.tick(20)), Some(10));
    assert_eq!(emitted(&stage.tick(20)), Some(20));
    assert_eq!(emitted(&stage.tick(20)), None, "nothing has changed");
}

#[test]
fn what_was_pushed_before_the_sample_must_be_acknowledged_before_it_goes_out() {
    let mut stage = Stage::with(&[(1, Standing::Following), (2, Standing::Following)]);
    stage.push(1);
    stage.tick(10);
    stage.push(2);
    let decision = stage.tick(20);
    assert_eq!(decision.detach, [connection(1)], "the other's is younger than the sample");
    assert_eq!(emitted(&decision), Some(10));
}

#[test]
fn while_nobody_follows_nothing_goes_out() {
    let mut stage = Stage::with(&[(1, Standing::Following)]);
    stage.push(1);
    stage.tick(10);
    let decision = stage.tick(20);
    assert_eq!((decision.detach.as_slice(), decision.emit), (&[connection(1)][..], None));
    stage.rounds.add(connection(2), Standing::Following);
    assert_eq!(emitted(&stage.tick(30)), Some(20));
}

#[test]
fn a_session_attaches_only_when_it_has_acknowledged_what_the_last_watermark_says() {
    let mut stage = Stage::with(&[(1, Standing::Detached), (2, Standing::Following)]);
    stage.push(1);
    stage.tick(10);
    let decision = stage.tick(20);
    assert_eq!(
        (emitted(&decision), decision.attach.as_slice()),
        (Some(10), &[][..]),
        "what is before 10 is not acknowledged"
    );
    stage.ack_all(1);
    stage.push(1);
    let decision = stage.tick(30);
    assert_eq!((emitted(&decision), decision.attach), (Some(20), vec![connection(1)]), "only what is after 20 is not");
}

#[test]
fn what_was_read_again_keeps_a_session_from_following_until_it_is_acknowledged() {
    let mut stage = Stage::with(&[(1, Standing::Detached)]);
    for tail in [10, 20, 30] {
        stage.push_old(1);
        assert_eq!(stage.tick(tail).attach, []);
    }
    stage.ack_all(1);
    assert_eq!(stage.tick(40).attach, [connection(1)]);
}

#[test]
fn after_a_rewind_nobody_follows_until_a_watermark_that_is_true_went_out() {
    let mut stage = Stage::with(&[(1, Standing::Following), (2, Standing::Following)]);
    stage.tick(100);
    assert_eq!(emitted(&stage.tick(100)), Some(100));
    let detached = stage.rounds.on_rewound(P, 50, &[connection(1), connection(2)]);
    assert_eq!(detached, [connection(1), connection(2)]);
    let decision = stage.tick(50);
    assert_eq!(emitted(&decision), Some(50));
    assert_eq!(decision.attach, [connection(1), connection(2)]);
}

/// W1 to W3 under random schedules: whatever a claimer finds in the log at any time, it resumes nobody beyond what they
/// acknowledged.
mod at_random {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A message for this session.
        Message(usize),
        Ack(usize),
        Tick,
        /// The session writes what it was told.
        Write(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3_usize).prop_map(Step::Message),
            3 => (0..3_usize).prop_map(Step::Ack),
            2 => Just(Step::Tick),
            1 => (0..3_usize).prop_map(Step::Write),
        ]
    }

    fn index(connection: ConnectionId) -> usize {
        usize::try_from(connection.as_u64()).unwrap()
    }

    #[derive(Default)]
    struct Session {
        /// Offset and tick of what it has not acknowledged.
        unacked: Vec<(i64, u32)>,
        told: Option<bool>,
        record: (i64, bool),
    }

    impl Session {
        fn acked(&self, end: i64) -> i64 {
            self.unacked.first().map_or(end, |(offset, _)| *offset)
        }

        /// Writes what it was told last, if it was told anything.
        fn write(&mut self, end: i64) -> Option<bool> {
            let following = self.told.take()?;
            self.record = (self.acked(end), following);
            Some(following)
        }
    }

    proptest! {
        #[test]
        fn no_claimer_skips_a_message(steps in prop::collection::vec(step(), 1..80)) {
            let mut rounds = Watermarks::default();
            let mut sessions: Vec<Session> = (0..3).map(|_| Session { record: (0, true), ..Session::default() }).collect();
            (0..3).for_each(|n| rounds.add(connection(n), Standing::Following));
            let (mut end, mut mark) = (0_i64, 0_i64);
            let (mut held, mut waits) = (None, BTreeSet::new());
            for step in steps {
                match step {
                    Step::Message(n) => {
                        sessions[n].unacked.push((end, rounds.tick()));
                        end += 1;
                    }
                    Step::Ack(n) => {
                        let session = &mut sessions[n];
                        if !session.unacked.is_empty() {
                            session.unacked.remove(0);
                        }
                    }
                    Step::Write(n) => {
                        if sessions[n].write(end) == Some(false) {
                            waits.remove(&n);
                        }
                    }
                    Step::Tick => {
                        let decision = rounds.on_tick(vec![(P, end)], |connection| {
                            let session = &sessions[index(connection)];
                            Some(session.unacked.iter().map(|(_, tick)| *tick).min().unwrap_or(NO_TICK))
                        });
                        waits.extend(decision.detach.iter().copied().map(index));
                        for attached in &decision.attach {
                            waits.remove(&index(*attached));
                        }
                        held = decision.emit.map(|done| done[0].1).or(held);
                        for (told, following) in [(&decision.detach, false), (&decision.attach, true)] {
                            for connection in told {
                                sessions[index(*connection)].told = Some(following);
                            }
                        }
                    }
                }
                if waits.is_empty() {
                    mark = held.take().unwrap_or(mark);
                }
                for session in &sessions {
                    let (position, following) = session.record;
                    let resumes_at = if following { position.max(mark) } else { position };
                    prop_assert!(resumes_at <= session.acked(end), "{resumes_at} > {}", session.acked(end));
                }
            }
        }
    }
}

#[test]
fn without_w1_to_w3_a_slow_session_counts_as_one_that_follows() {
    let slow = |rules| {
        let mut stage = Stage::with(&[(1, Standing::Following), (2, Standing::Following)]);
        stage.rounds.rules = rules;
        stage.push(1);
        stage.tick(10);
        let fell_behind = stage.tick(20);
        let later = stage.tick(30);
        (
            fell_behind.detach == [connection(1)],
            later.attach == [connection(1)],
            stage.rounds.is_following(connection(1)),
        )
    };
    assert_eq!(slow(Rules::ALL), (true, false, false));
    assert_eq!(slow(Rules::without(Rule::W1)), (true, true, true), "it follows again at once");
    assert_eq!(slow(Rules::without(Rule::W2)), (false, false, true), "nobody asks where it is");
    assert_eq!(slow(Rules::without(Rule::W3)), (false, false, false), "where it is, is not written");
}
