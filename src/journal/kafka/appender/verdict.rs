//! What one answer says about one batch.

use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use crate::journal::kafka::wire::code;
use crate::journal::{Offset, Refusal};

/// About one attempt to append one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the log, by this attempt or one before.
    Written(Offset),
    /// It is in the log, and nobody says where.
    WrittenSomewhere,
    /// To be tried again with the same bytes and sequence.
    Retry {
        /// Whether this attempt may have appended it all the same.
        maybe_appended: bool,
    },
    /// This attempt did not append it, and no other would.
    Refused(Refusal),
    /// This attempt did not append it: it is larger than the kafka topic allows.
    TooLarge,
    /// This attempt did not append it because of these records (none named: some).
    Invalid(Vec<usize>),
    /// This attempt did not append it: the leader expects another sequence number.
    OutOfSequence,
    /// This attempt did not append it: somebody fenced this producer.
    Fenced,
}

impl Verdict {
    /// The connection ended before the answer.
    pub fn lost(maybe_sent: bool) -> Self {
        Self::Retry { maybe_appended: maybe_sent }
    }

    /// Of a partition's part of a Produce response.
    ///
    /// Whether an error leaves the batch's fate open: a leader that appended and then lost its office, its partition or
    /// its disk while waiting for the in-sync replicas answers with the same codes as one that never appended. So only
    /// errors that Kafka raises before the append are certain.
    pub fn of(answer: &PartitionProduceResponse) -> Self {
        match answer.error_code {
            code::NONE | code::DUPLICATE_SEQUENCE_NUMBER if answer.base_offset >= 0 => {
                Self::Written(Offset(answer.base_offset))
            }
            code::NONE | code::DUPLICATE_SEQUENCE_NUMBER => Self::WrittenSomewhere,
            code::CORRUPT_MESSAGE | code::NOT_ENOUGH_REPLICAS | code::THROTTLING_QUOTA_EXCEEDED => {
                Self::Retry { maybe_appended: false }
            }
            code::MESSAGE_TOO_LARGE | code::RECORD_LIST_TOO_LARGE => Self::TooLarge,
            code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED => {
                Self::Refused(Refusal::NotAuthorized)
            }
            code::INVALID_TOPIC => Self::Refused(Refusal::NoSuchPartition),
            code::INVALID_RECORD | code::INVALID_TIMESTAMP => {
                let named = answer.record_errors.iter().filter_map(|error| usize::try_from(error.batch_index).ok());
                Self::Invalid(named.collect())
            }
            code::UNSUPPORTED_FOR_MESSAGE_FORMAT
            | code::UNSUPPORTED_COMPRESSION_TYPE
            | code::UNSUPPORTED_VERSION
            | code::POLICY_VIOLATION => Self::Refused(Refusal::Invalid),
            code::OUT_OF_ORDER_SEQUENCE_NUMBER | code::UNKNOWN_PRODUCER_ID => Self::OutOfSequence,
            code::INVALID_PRODUCER_EPOCH | code::PRODUCER_FENCED => Self::Fenced,
            // Leadership, time-outs, storage, replicas after the append, and what we do not know.
            _ => Self::Retry { maybe_appended: true },
        }
    }
}
