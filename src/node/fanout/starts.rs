//! Asking where subscriptions start, and starting them ([`super::round`] has the states).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lag::{FROM_LOG_START, Waits};
use super::round::{Held, OpenRound, Round, Verdict};
use super::sweep::{Clamped, clamp};
use super::{Answer, Fanout};
use crate::journal::{Ends, JournalError, Partition, Tail};
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Notice;
use crate::ops::tasks;
use crate::session::Starts;

/// How long a question that failed rests before it is asked again.
const ASK_AGAIN_MS: u64 = 200;

impl Fanout {
    /// Asks for the ends of what was collected, unless a question is under way: then it joins the next one.
    pub(super) fn ask(&mut self) {
        if self.asked.is_some() || self.collecting.is_empty() {
            return;
        }
        let next = OpenRound::new(self.collecting.round.number + 1);
        let round = std::mem::replace(&mut self.collecting, next);
        let partitions: Vec<Partition> = round.partitions.iter().copied().collect();
        self.asked = Some(round);
        let (journal, answers_to) = (Arc::clone(&self.journal), self.answers_to.clone());
        tasks::spawn("ends", async move {
            let answer = loop {
                match journal.ends(&partitions).await {
                    Ok(ends) => break ends,
                    Err(JournalError::Closed) => return,
                    Err(error @ (JournalError::Unavailable { .. } | JournalError::Refused { .. })) => {
                        tracing::debug!(%error, "subscriptions wait for the ends of their partitions");
                        tokio::time::sleep(std::time::Duration::from_millis(ASK_AGAIN_MS)).await;
                    }
                }
            };
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Ends(partitions.into_iter().zip(answer).collect())).await;
        });
    }

    pub(super) fn on_answer(&mut self, answer: Answer, tail: &mut dyn Tail, retained_tail: &mut dyn Tail) {
        match answer {
            Answer::Ends(ends) => self.on_ends(&ends, tail),
            Answer::CaughtUp(answer) => self.on_caught_up(answer),
            Answer::Retained(answer) => {
                if let Some(retaining) = self.retaining.as_deref_mut() {
                    retaining.on_answer(answer, retained_tail);
                }
            }
        }
    }

    /// The round of that number, which has not been answered yet.
    pub(super) fn open_round(&mut self, number: u64) -> &mut OpenRound {
        match &mut self.asked {
            Some(asked) if asked.round.number == number => asked,
            Some(_) | None => &mut self.collecting,
        }
    }

    fn on_ends(&mut self, ends: &[(Partition, Ends)], tail: &mut dyn Tail) {
        let Some(open) = self.asked.take() else { return };
        let mut starts = BTreeMap::new();
        for &(partition, ends) in ends {
            let whole = open.from_log_start.contains(&partition);
            let start = if whole { ends.log_start } else { ends.high_watermark };
            starts.insert(partition, start);
            if self.interest.is_wanted(partition) && !self.positions.contains_key(&partition) {
                if !self.places.knows(partition.topic) {
                    self.places.set(partition.topic, self.journal.topic_id(partition.topic));
                }
                self.follow_at(partition, start, tail);
            }
        }
        open.round.start(starts);
        // The round may forget them when it passes.
        let begun_at: Vec<Starts> = open.waiting.iter().map(|(id, _)| self.starts_of(*id, &open.round)).collect();
        let begun = self.begin_snapshots(open.beginning, &open.round);
        // Before the round may pass: what is held can be older than its start.
        for Held { connection, partition, offset, delivery } in open.held {
            if open.round.judge(partition, offset) == Verdict::Deliver {
                self.push(connection, partition, offset, delivery);
            }
        }
        if !open.round.try_pass(&self.positions) {
            self.starting.push(Arc::clone(&open.round));
        }
        self.resume_within(&open.resuming, ends);
        for connection in open.unstarted {
            self.board_from(connection, Waits::Start);
        }
        for ((connection, packet_id), starts) in open.waiting.into_iter().zip(begun_at) {
            let from = self.position_of(connection);
            if let Some(follower) = self.followers.get(&connection) {
                follower.mailbox.post(Notice::Followed { packet_id, from, starts });
            }
        }
        // Behind the answer, which most clients like to see first.
        for connection in begun {
            self.pump(connection);
        }
        if !open.changed.is_empty() {
            for connection in self.durable_touching(|partition| open.changed.contains(&partition.topic)) {
                self.tell_position(connection);
            }
        }
        self.ask();
    }

    /// Where the subscriptions of a session that outlives its connection start that start with this round.
    fn starts_of(&self, connection: ConnectionId, round: &Arc<Round>) -> Starts {
        let Some(follower) = self.followers.get(&connection).filter(|follower| follower.durable) else {
            return Starts::new();
        };
        let started = follower.filters.iter().filter(|subscribed| Arc::ptr_eq(&subscribed.round, round));
        let starts = started.map(|subscribed| {
            let wants = self.interest.wants_of(&self.mapping, &subscribed.filter);
            let touched: BTreeSet<Partition> =
                wants.into_iter().flat_map(|want| self.interest.partitions_of(want)).collect();
            let start = |partition: Partition| Some((self.places.place(partition)?, round.start_in(partition)?.0));
            (subscribed.filter.clone(), touched.into_iter().filter_map(start).collect())
        });
        starts.collect()
    }

    /// Sessions go on where they were, within what exists.
    fn resume_within(&mut self, resuming: &[ConnectionId], ends: &[(Partition, Ends)]) {
        let ends: BTreeMap<Partition, Ends> = ends.iter().copied().collect();
        let mut moved: BTreeMap<Partition, Clamped> = BTreeMap::new();
        for &connection in resuming {
            let lag = self.followers.get_mut(&connection).and_then(|follower| follower.lag.as_mut());
            let Some(lag) = lag.filter(|lag| lag.waits == Waits::Start) else { continue };
            lag.from.retain(|partition, from| {
                let Some(ends) = ends.get(partition) else { return false };
                if *from == FROM_LOG_START {
                    *from = ends.log_start;
                }
                moved.entry(*partition).or_default().add(clamp(from, &(ends.log_start..ends.high_watermark)));
                true
            });
            self.board(connection);
        }
        for (partition, clamped) in moved {
            self.report(partition, clamped);
        }
    }
}
