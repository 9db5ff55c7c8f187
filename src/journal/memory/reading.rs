//! Questions to the log.

use super::MemoryLog;
use super::log::{IncarnationId, Place};
use super::partition::{PartitionLog, Step};
use crate::journal::{Ends, FenceForm, Isolation, JournalError, Offset, Partition, ReadAnswer};

impl MemoryLog {
    /// Both ends of each partition, in the order asked.
    ///
    /// # Errors
    /// One does not exist.
    pub fn ends(&self, id: IncarnationId, partitions: &[Partition]) -> Result<Vec<Ends>, JournalError> {
        partitions.iter().map(|&partition| Ok(self.log_of(id, partition, "the ends")?.ends())).collect()
    }

    /// Records from `from` on: at least one batch if there is one, and about `bytes_max`.
    ///
    /// # Errors
    /// The partition does not exist, or has nothing at `from` because that is before its start or after its end.
    pub fn read(
        &self,
        id: IncarnationId,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<ReadAnswer, JournalError> {
        let log = self.log_of(id, partition, "a read")?;
        let refuse = |why: String| JournalError::Refused { doing: doing("a read", partition), why };
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut next = from.0;
        while bytes < bytes_max.max(1) {
            match log.step(next, isolation) {
                Step::Below => {
                    return Err(refuse(format!("offset {next} is below the log's start, {}", log.log_start)));
                }
                Step::Beyond => return Err(refuse(format!("offset {next} is beyond the log's end, {}", log.end))),
                Step::Nothing => break,
                Step::Skip(to) => next = to,
                Step::Batch(batch) => {
                    bytes += batch.cost_bytes();
                    batches.push(batch.hand_out(partition, next));
                    next = batch.next;
                }
            }
        }
        Ok(ReadAnswer { batches, next: Offset(next), ends: log.ends() })
    }

    /// Decides whether a question goes unanswered.
    ///
    /// # Errors
    /// It does.
    pub fn may_answer(&mut self, doing: &str) -> Result<(), JournalError> {
        if self.dice.chance(self.plan.unanswered_permille) {
            return Err(JournalError::Unavailable { doing: doing.into() });
        }
        Ok(())
    }

    /// An incarnation fences a producer in one partition, in the form that the fault plan allows.
    ///
    /// # Errors
    /// The partition does not exist, or there was no answer: then it may be fenced or not.
    pub fn fence_partition(
        &mut self,
        id: IncarnationId,
        producer_id: i64,
        partition: Partition,
    ) -> Result<(), JournalError> {
        let answered = self.may_answer_to(id, "a fence");
        if answered.is_err() && (self.is_cut_off(id) || self.dice.coin()) {
            return answered;
        }
        self.log_of(id, partition, "a fence")?;
        let slot = self.incarnations.get(id.0).and_then(|incarnation| incarnation.slot(partition.topic));
        if let Some(slot) = slot {
            self.fence_at(producer_id, Place { slot, number: partition.number }, self.fence_form());
        }
        answered
    }

    /// The form of a fence that the fault plan allows.
    pub fn fence_form(&self) -> FenceForm {
        if self.plan.fences_are_records { FenceForm::Record } else { FenceForm::Marker }
    }

    fn log_of(&self, id: IncarnationId, partition: Partition, what: &str) -> Result<&PartitionLog, JournalError> {
        let slot = self.incarnations.get(id.0).and_then(|incarnation| incarnation.slot(partition.topic));
        let topic = slot.and_then(|slot| self.topics.get(slot));
        topic.and_then(|topic| topic.partitions.get(partition.number as usize)).ok_or_else(|| JournalError::Refused {
            doing: doing(what, partition),
            why: "the kafka topic or partition does not exist".into(),
        })
    }
}

fn doing(what: &str, partition: Partition) -> String {
    format!("{what} of partition {} of kafka topic number {}", partition.number, partition.topic.0)
}
