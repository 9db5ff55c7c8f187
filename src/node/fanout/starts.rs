//! Asking where subscriptions start, and starting them ([`super::round`] has the states).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::round::{Held, OpenRound, Verdict};
use super::{Answer, Fanout};
use crate::journal::{Ends, JournalError, Partition, Tail};
use crate::node::mailbox::Notice;
use crate::ops::tasks;

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

    pub(super) fn on_answer(&mut self, answer: Answer, tail: &mut dyn Tail) {
        match answer {
            Answer::Ends(ends) => self.on_ends(&ends, tail),
            Answer::CaughtUp(answer) => self.on_caught_up(answer),
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
                self.positions.insert(partition, start);
                tail.follow(partition, start);
            }
        }
        open.round.start(starts);
        // Before the round may pass: what is held can be older than its start.
        for Held { connection, partition, offset, delivery } in open.held {
            if open.round.judge(partition, offset) == Verdict::Deliver {
                self.push(connection, partition, offset, delivery);
            }
        }
        if !open.round.try_pass(&self.positions) {
            self.starting.push(Arc::clone(&open.round));
        }
        for (connection, packet_id) in open.waiting {
            if let Some(follower) = self.followers.get(&connection) {
                follower.mailbox.post(Notice::Followed(packet_id));
            }
        }
        self.ask();
    }
}
