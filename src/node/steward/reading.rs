//! Reading the state logs. `mqtt.cluster` comes first: it says which generation of `mqtt.sessions` there is to read (F1).
//!
//! ```text
//!             replayed           known           replayed
//!  Cluster ──────────▶ Generation ───▶ Sessions ──────────▶ Done
//!     ▲                                    │                 │
//!     └────────────────────────────────────┴─────────────────┘ a tail lost its place, or it is another kafka topic
//! ```

use std::time::Duration;

use super::{ASK_AGAIN_MS, Answer, FENCE_MS_MAX, Steward};
use crate::journal::{Ends, JournalError, Offset, Partition, Tail};
use crate::node::replay::Replay;
use crate::ops::tasks;

/// How far the state logs are read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    stage: Stage,
    replay: Replay,
    /// Counts the questions for ends: only the last one's answer counts.
    round: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// `mqtt.cluster` is read to the end that was seen.
    #[default]
    Cluster,
    /// `mqtt.sessions` needs a generation.
    Generation,
    /// The kafka topic with this id is read to the end that was seen.
    Sessions { topic_id: u128 },
    /// Both are followed.
    Done,
}

impl Steward {
    pub(super) fn begin_reading(&mut self) {
        self.reading.stage = Stage::Cluster;
        self.ask_replay(0..self.journal.partitions(self.cluster), self.cluster);
    }

    /// Where a state log begins and ends now: its replay is over when it comes to these ends.
    fn ask_replay(&mut self, numbers: std::ops::Range<u32>, topic: crate::journal::TopicIndex) {
        self.reading.round += 1;
        let (journal, answers_to, round) = (self.journal.clone(), self.answers_to.clone(), self.reading.round);
        let partitions: Vec<Partition> = numbers.map(|number| Partition { topic, number }).collect();
        tasks::spawn("state ends", async move {
            let ends = loop {
                match journal.ends(&partitions).await {
                    Ok(ends) => break ends,
                    Err(error) => {
                        tracing::debug!(%error, "the ends of the state logs are not known yet");
                        tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await;
                    }
                }
            };
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::Replay { round, ends: partitions.into_iter().zip(ends).collect() }).await;
        });
    }

    pub(super) fn on_ends(&mut self, round: u64, ends: &[(Partition, Ends)], tail: &mut dyn Tail) {
        if round != self.reading.round {
            return;
        }
        for (partition, from) in self.reading.replay.begin(ends) {
            tail.follow(partition, from);
        }
        // The tail tells when it becomes another kafka topic from here on; was it still that one until here?
        if let Stage::Sessions { topic_id } = self.reading.stage
            && self.journal.topic_id(self.sessions) != Some(topic_id)
        {
            self.lose(tail);
        } else if self.reading.replay.is_over_at_once() {
            self.on_replayed();
        }
    }

    pub(super) fn progress(&mut self, partition: Partition, next: Offset) {
        if self.reading.replay.on_progress(partition, next) {
            self.on_replayed();
        }
        self.seek_generation();
    }

    fn on_replayed(&mut self) {
        match self.reading.stage {
            Stage::Cluster => {
                self.reading.stage = Stage::Generation;
                self.seek_generation();
            }
            Stage::Sessions { .. } => {
                self.reading.stage = Stage::Done;
                self.core.on_replayed();
                if let Some(ready) = self.on_ready.take() {
                    // Who started the node may have gone away.
                    let _ = ready.send(());
                }
            }
            Stage::Generation | Stage::Done => {}
        }
    }

    /// Goes on to `mqtt.sessions` as soon as its generation is known.
    pub(super) fn seek_generation(&mut self) {
        if self.reading.stage != Stage::Generation {
            return;
        }
        let partitions = self.journal.partitions(self.sessions);
        let Some(topic_id) = self.journal.topic_id(self.sessions).filter(|_| partitions > 0) else { return };
        if let Some(generation) = self.core.seek_generation(topic_id) {
            self.core.begin_generation(topic_id, generation, partitions);
            self.reading.stage = Stage::Sessions { topic_id };
            self.ask_replay(0..partitions, self.sessions);
        }
    }

    /// Nothing that was read holds any more (F6).
    pub(super) fn lose(&mut self, tail: &mut dyn Tail) {
        for partition in self.reading.replay.restart() {
            tail.unfollow(partition);
        }
        self.core.on_lost();
        self.begin_reading();
    }

    /// Fences producers in every partition of `mqtt.sessions`. Where Kafka lets nobody fence, that cannot be mended here.
    pub(super) fn fence_anew(&self, topic_id: u128, producer_ids: Vec<i64>) {
        let (journal, answers_to, topic) = (self.journal.clone(), self.answers_to.clone(), self.sessions);
        let partitions: Vec<Partition> =
            (0..self.journal.partitions(topic)).map(|number| Partition { topic, number }).collect();
        tasks::spawn("fence anew", async move {
            for producer_id in producer_ids {
                loop {
                    let results = journal.fence(producer_id, &partitions, Duration::from_millis(FENCE_MS_MAX)).await;
                    let Some(error) = results.into_iter().find_map(Result::err) else { break };
                    tracing::warn!(producer_id, %error, "a node that ended is not fenced in the new mqtt.sessions yet");
                    if !matches!(error, JournalError::Unavailable { .. }) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(ASK_AGAIN_MS)).await;
                }
            }
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::FencedAnew { topic_id }).await;
        });
    }
}
