//! Layer 3, the seam: the log as Millrace needs it, on Kafka ([`kafka`]) or in memory ([`memory`]).
//!
//! * Appends are pushed with a [`Ticket`] and never block, wait or allocate a future each; what became of them comes
//!   back in groups through the [`AckSink`], one group per response and partition.
//! * A [`Tail`] follows partitions and hands out whole batches, read lazily: a record that nobody here wants is
//!   skipped without touching its value or headers.
//! * Nothing is silent: what goes wrong with a log that is followed arrives as a [`TailEvent`]; there is no automatic
//!   offset reset.

pub mod batch;
pub mod kafka;
pub mod memory;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::message::RecordRef;
pub use batch::{Batch, StoredRecord};

/// A kafka topic that this journal was told of: an index into the topics it was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIndex(pub u16);

/// One partition of a kafka topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The kafka topic.
    pub topic: TopicIndex,
    /// The partition's number, from 0.
    pub number: u32,
}

/// A record's offset in its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

/// Names one append to whoever asked for it; the journal hands it back and never looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Whose it is: the owner's slot.
    pub owner: u64,
    /// Which of the owner's appends.
    pub sequence: u64,
}

/// What became of a group of appends. Exactly one of these comes for every accepted append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// In the log, acknowledged by all in-sync replicas; the offset of the group's first record, the others follow.
    Written(Offset),
    /// Certainly not in the log, and never will be.
    Refused(Refusal),
    /// Perhaps in the log, now or later. Never an acknowledgement.
    ///
    /// Until when it may still land:
    /// * **A later append** of the same incarnation to the same partition was `Written`: nothing that was unknown before it
    ///   lands any more. Both are in the log in their order, or only the later one.
    /// * **A fence** of its producer in that partition ([`Journal::fence`] said `Ok`, or another append there was
    ///   `Refused(Fenced)`): it is in the log by then or never will be.
    /// * Nothing else settles it. The deadline of appends only ends the waiting: a request that Kafka has received is
    ///   carried out however late, also after the death of the process that sent it.
    ///
    /// So to follow it up: make one of the two happen, *then* ask for the ends, and read what the partition has up to there
    /// ([`Isolation::ReadUncommitted`]), from an offset that was the end before the append.
    ///
    /// When the kafka topic was deleted and created again ([`TailEvent::Recreated`]), what was under way may land in the new
    /// one, because Kafka is told names; and the new one knows nothing of earlier fences. Partitions of it that matter are
    /// to be fenced anew.
    Unknown,
}

/// Why appends were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The record is larger than the kafka topic takes.
    #[error("the record is larger than the kafka topic allows")]
    TooLarge,
    /// Kafka's ACL does not let this node write there.
    #[error("Kafka does not authorize this node to write to the kafka topic")]
    NotAuthorized,
    /// Kafka found the record invalid (for example no key on a compacted topic).
    #[error("Kafka refused the record as invalid")]
    Invalid,
    /// The kafka topic or partition does not exist.
    #[error("the kafka topic or partition does not exist")]
    NoSuchPartition,
    /// The deadline passed and the records had certainly not been sent.
    #[error("Kafka could not be reached before the deadline")]
    Deadline,
    /// This incarnation's producer was fenced (`INVALID_PRODUCER_EPOCH`): the process must end (F9c).
    #[error("this node was fenced")]
    Fenced,
}

/// A group of appends with one fate.
#[derive(Clone, Debug)]
pub struct AckGroup<'a> {
    /// Where they were to go.
    pub partition: Partition,
    /// What became of them.
    pub outcome: Outcome,
    /// In the order of the appends, which is the order in the log.
    pub tickets: &'a [Ticket],
}

/// Takes the outcomes of appends. Called on the journal's own task: must not block.
pub trait AckSink: Send + Sync + 'static {
    /// One group; several may come in a row from one response, then one [`AckSink::flush`].
    fn on_acks(&self, group: &AckGroup<'_>);
    /// All groups of one response were handed over: now is the time to wake whoever waits.
    fn flush(&self);
}

/// Why an append was not even taken; nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The byte budget is full: try again after [`Journal::room`].
    #[error("the journal's append budget is full")]
    Full,
    /// The record alone is larger than a batch may be.
    #[error("the record is larger than a batch may be")]
    TooLarge,
    /// No such partition.
    #[error("no such partition")]
    NoSuchPartition,
    /// The journal is closed or fenced.
    #[error("the journal is closed")]
    Closed,
}

/// Both ends of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// First offset that still exists.
    pub log_start: Offset,
    /// Next offset to be read by `READ_COMMITTED`.
    pub last_stable: Offset,
    /// Next offset to be acknowledged.
    pub high_watermark: Offset,
}

/// Which records of foreign transactions a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the last stable offset, without aborted records: message topics.
    ReadCommitted,
    /// Up to the high watermark: state topics, barriers, look-ups of own records.
    ReadUncommitted,
}

/// What a tail has to say.
#[derive(Debug)]
pub enum TailEvent {
    /// The next records of a partition. Data batches only: aborted transactions and control batches are left out, but
    /// the offsets advance past them ([`Batch::next_offset`]).
    Batch(Batch),
    /// The tail's position moved past records without one to hand out (control batches, compacted or aborted records), or
    /// the partition's ends became known.
    Progress {
        /// Whose.
        partition: Partition,
        /// The tail's next offset.
        next: Offset,
        /// As of the same response.
        ends: Ends,
    },
    /// Records between the tail's position and `log_start` are gone (retention). The tail stopped following the partition.
    BelowLogStart {
        /// Whose.
        partition: Partition,
        /// Where it was.
        position: Offset,
        /// Where the log begins now.
        log_start: Offset,
    },
    /// The log is shorter than it was: acknowledged records were lost by Kafka. The tail stopped following it.
    Rewound {
        /// Whose.
        partition: Partition,
        /// Where the tail was.
        position: Offset,
        /// Where the log ends.
        end: Offset,
    },
    /// The kafka topic was deleted and created again (another topic id). The tail stopped following it.
    Recreated {
        /// Which.
        topic: TopicIndex,
    },
    /// The kafka topic has more partitions than before.
    PartitionsAdded {
        /// Which.
        topic: TopicIndex,
        /// How many now.
        partitions: u32,
    },
    /// The tail lost its place for another reason and stopped following the partition.
    Gap {
        /// Whose.
        partition: Partition,
        /// A sentence for the log.
        why: String,
    },
}

/// Why a question to Kafka got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// No answer in time; it may be asked again.
    #[error("Kafka did not answer in time ({doing})")]
    Unavailable {
        /// What was being asked.
        doing: String,
    },
    /// The answer was an error that asking again does not mend.
    #[error("Kafka refused {doing}: {why}")]
    Refused {
        /// What was being asked.
        doing: String,
        /// Kafka's error, in words.
        why: String,
    },
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// A boxed future: questions to the journal are rare, appends are not futures.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, JournalError>> + Send + 'a>>;

/// How a dead incarnation's producer is fenced in a partition (F9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceForm {
    /// As the end of a transaction that never was: it takes an offset and nobody sees it. Kafka wants `ClusterAction` or
    /// `Alter` on the cluster.
    Marker,
    /// As a record without a value and with the header `mqtt-fence`, which readers drop. Whoever may write to the kafka
    /// topic may write it.
    Record,
}

/// What the cluster allows this node's user to do about the producers of dead nodes (F9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// The form in which this node fences; `None` if no form is allowed in all kafka topics.
    pub form: Option<FenceForm>,
    /// Kafka topics where neither form is allowed, in the order asked.
    pub not_allowed: Vec<String>,
}

/// What came of a fence: one result for each partition, in the order asked.
pub type Fenced<'a> = Pin<Box<dyn Future<Output = Vec<Result<(), JournalError>>> + Send + 'a>>;

/// A kafka topic as it is or should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Copies; `None` leaves it to the cluster's default.
    pub replication_factor: Option<u16>,
    /// Topic configs (`cleanup.policy`, ...), in order of their names.
    pub configs: Vec<(String, String)>,
}

/// What the cluster says of a kafka topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Kafka's topic id; it changes when the topic is recreated.
    pub topic_id: u128,
    /// Number of partitions.
    pub partitions: u32,
    /// Copies.
    pub replication_factor: u16,
    /// Effective topic configs, in order of their names.
    pub configs: Vec<(String, String)>,
}

/// Records read by offset.
#[derive(Debug)]
pub struct ReadAnswer {
    /// Zero or more batches; those before the asked offset are trimmed by [`Batch::records`].
    pub batches: Vec<Batch>,
    /// Where to go on.
    pub next: Offset,
    /// As of this read.
    pub ends: Ends,
}

/// The log.
pub trait Journal: Send + Sync + 'static {
    /// The number of partitions of a kafka topic, as last seen.
    fn partitions(&self, topic: TopicIndex) -> u32;

    /// The kafka topic's id, as last seen: another one when it is deleted and created again. `None` if it was never seen.
    fn topic_id(&self, topic: TopicIndex) -> Option<u128>;

    /// The one producer id of this incarnation, by which it is fenced once it is dead (F9). The same from the opening of
    /// the journal to its end; −1 for a journal that was opened without kafka topics and so cannot append.
    fn producer_id(&self) -> i64;

    /// Fences a dead incarnation's producer in `partitions`, whether it ever wrote there or not (F9): as
    /// [`FenceForm::Marker`] where the cluster lets this node, else as [`FenceForm::Record`]. Tries for `limit`.
    ///
    /// Where the result is `Ok`, nothing of that producer lands any more, whatever was under way: ends asked for
    /// afterwards are final for it, and what is still sent is `Refused(Fenced)`. To fence what is fenced is no error, and
    /// [`JournalError::Unavailable`] leaves it open whether it is: to be repeated until all are. [`JournalError::Refused`]:
    /// neither form is allowed there.
    ///
    /// A fence lasts as long as the partition's leader remembers the producer: `producer.id.expiration.ms` of Kafka, a day by
    /// default, after the fence; and not beyond the deletion of the kafka topic.
    fn fence<'a>(&'a self, producer_id: i64, partitions: &'a [Partition], limit: Duration) -> Fenced<'a>;

    /// Takes a record for `partition`: encodes it into the open batch before it returns. Never waits.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing was sent, no outcome will come.
    fn append(&self, ticket: Ticket, partition: Partition, record: &RecordRef<'_>) -> Result<(), NotTaken>;

    /// Resolves when the append budget has room again (at once if it has).
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Waits until everything taken so far has had its outcome, or `limit` has passed; true if all had.
    fn flush(&self, limit: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;

    /// A new tail that follows nothing yet.
    fn tail(&self, isolation: Isolation) -> Box<dyn Tail>;

    /// Both ends of each partition, in the order asked, in as few requests as there are Kafka nodes.
    fn ends<'a>(&'a self, partitions: &'a [Partition]) -> Answer<'a, Vec<Ends>>;

    /// Records from `from` on, at most about `bytes_max` (at least one batch if there is one), without waiting for new ones.
    /// There may be more behind [`ReadAnswer::next`], however few came: Kafka answers from one log segment at a time.
    fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Answer<'_, ReadAnswer>;

    /// What the cluster has under these names; `None` for one that does not exist.
    fn describe<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<TopicDescription>>>;

    /// Creates the kafka topics that do not exist; existing ones are left as they are.
    fn create<'a>(&'a self, specs: &'a [TopicSpec]) -> Answer<'a, ()>;

    /// How this node may fence in these kafka topics, found out without writing anything; those that do not exist are
    /// passed over.
    fn fencing<'a>(&'a self, names: &'a [String]) -> Answer<'a, Fencing>;

    /// How the journal is, for metrics and readiness.
    fn health(&self) -> Health;
}

/// How a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Time since Kafka last answered anything on every connection that should be alive; `None` before the first answer.
    pub silent_for: Option<Duration>,
    /// Bytes taken and not yet decided.
    pub pending_bytes: usize,
    /// This incarnation was fenced.
    pub fenced: bool,
}

/// Follows partitions. One reader; changes take effect before the next response that is asked for.
pub trait Tail: Send {
    /// Follow `partition` from `from` on. Following it already moves the tail there.
    fn follow(&mut self, partition: Partition, from: Offset);
    /// Stop following.
    fn unfollow(&mut self, partition: Partition);
    /// The next event. Cancel safe.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = TailEvent> + Send + '_>>;
}

/// Shared by all who use it.
pub type SharedJournal = Arc<dyn Journal>;
