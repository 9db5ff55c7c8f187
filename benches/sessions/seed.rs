//! Many sessions at once: for each a claim and a set, as a node leaves them that has disconnected its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::Args;
use millrace::clock;
use millrace::journal::kafka::KafkaJournal;
use millrace::journal::{AckGroup, AckSink, Journal, NotTaken, Outcome, Ticket};
use millrace::ledger::ids::{Epoch, Incarnation, Nonce, Place, topic_number};
use millrace::ledger::record::{ClientKey, LastWord, Slot, claim, key, last, set};
use millrace::ledger::state::{Life, Position, SessionState, SubscriptionState};
use millrace::message::RecordRef;
use millrace::mqtt::TopicFilter;
use millrace::mqtt::packet::{QoS, SubscribeOptions};
use millrace::route::partition::partition_of;

use crate::{MESSAGES, Result, SESSIONS, open, partition};

/// Sessions between two waits for acknowledgements.
const CHUNK: u64 = 50_000;
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Args)]
pub struct Arguments {
    /// host:port, several with commas
    #[arg(long)]
    kafka: String,
    /// The sessions' kafka topic
    #[arg(long)]
    sessions: String,
    /// The kafka topic of messages
    #[arg(long)]
    messages: String,
    /// Sessions
    #[arg(long)]
    count: u64,
    /// After that, so many sessions in turn are claimed anew: claim, set, final, and the tombstones of what was before
    #[arg(long, default_value_t = 0)]
    churn: u64,
    /// Client ids: this and a number
    #[arg(long, default_value = "seed-")]
    prefix: String,
    /// Seconds that sessions outlive their connections
    #[arg(long, default_value_t = 86_400)]
    expiry_s: u32,
    /// Of `mqtt.sessions`, as nodes found it
    #[arg(long, default_value_t = 0)]
    generation: u32,
}

/// Offsets of what was appended, by place within a chunk.
struct Acks {
    offsets: Vec<AtomicI64>,
    lost: AtomicUsize,
}

impl AckSink for Acks {
    fn on_acks(&self, group: &AckGroup<'_>) {
        for (index, ticket) in (0..).zip(group.tickets) {
            let offset = usize::try_from(ticket.sequence).ok().and_then(|place| self.offsets.get(place));
            match (group.outcome, offset) {
                (Outcome::Written(first), Some(offset)) => offset.store(first.0 + index, Ordering::Release),
                (Outcome::Written(_), None) => {}
                (Outcome::Refused(_) | Outcome::Unknown, _) => {
                    self.lost.fetch_add(1, Ordering::Release);
                }
            }
        }
    }

    fn flush(&self) {}
}

struct Seeder<'a> {
    arguments: &'a Arguments,
    journal: KafkaJournal,
    acks: Arc<Acks>,
    incarnation: Incarnation,
    /// Number of the kafka topic of messages, and the ends of its partitions.
    topic: u32,
    ends: Vec<i64>,
}

/// Writes it all.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let offsets = (0..CHUNK).map(|_| AtomicI64::new(-1)).collect();
    let acks = Arc::new(Acks { offsets, lost: AtomicUsize::new(0) });
    let topics = [&*arguments.sessions, &*arguments.messages];
    let journal = open(&arguments.kafka, &topics, Arc::clone(&acks) as _).await?;
    let partitions: Vec<_> = (0..journal.partitions(MESSAGES)).map(|number| partition(MESSAGES, number)).collect();
    let ends = journal.ends(&partitions).await?.iter().map(|ends| ends.high_watermark.0).collect();
    let topic = topic_number(journal.topic_id(MESSAGES).ok_or("the kafka topic of messages has no id")?);
    let incarnation = Incarnation(*b"bench-sessions-1");
    let seeder = Seeder { arguments, journal, acks, incarnation, topic, ends };
    seeder.write(0, arguments.count).await?;
    seeder.write(arguments.count, arguments.churn).await?;
    Ok(())
}

impl Seeder<'_> {
    /// The claims numbered from `first` on; a session is claimed by every number that is its own modulo the count.
    async fn write(&self, first: u64, count: u64) -> Result<()> {
        let mut from = first;
        while from < first + count {
            let until = (from + CHUNK).min(first + count);
            for number in from..until {
                let key = key(&self.client(number), nonce(number), Slot::Claim);
                self.append(number - from, number, &key, Some(&claim(self.incarnation))).await?;
            }
            self.flush().await?;
            for number in from..until {
                let place = usize::try_from(number - from)?;
                let offset = self.acks.offsets.get(place).ok_or("no place")?.load(Ordering::Acquire);
                self.finish(number, offset).await?;
            }
            self.flush().await?;
            from = until;
        }
        Ok(())
    }

    /// The set of a claim, and the end of the claim before.
    async fn finish(&self, number: u64, offset: i64) -> Result<()> {
        let (client, own) = (self.client(number), nonce(number));
        let epoch = Epoch { generation: self.arguments.generation, offset };
        let value = set(epoch, self.incarnation, 1, &self.state(number)?);
        self.append(u64::MAX, number, &key(&client, own, Slot::Set), Some(&value)).await?;
        self.append(u64::MAX, number, &key(&client, own, Slot::Final), Some(&last(&LastWord::default()))).await?;
        if let Some(before) = number.checked_sub(self.arguments.count) {
            for slot in [Slot::Claim, Slot::Set, Slot::Final] {
                self.append(u64::MAX, number, &key(&client, nonce(before), slot), None).await?;
            }
        }
        Ok(())
    }

    fn client(&self, number: u64) -> ClientKey {
        ClientKey::new("", &format!("{}{}", self.arguments.prefix, number % self.arguments.count))
    }

    fn state(&self, number: u64) -> Result<SessionState> {
        let topic = format!("{}{}", self.arguments.prefix, number % self.arguments.count);
        let filter = TopicFilter::parse(&topic).map_err(|error| error.to_string())?;
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        let partition = partition_of(topic.as_bytes(), u32::try_from(self.ends.len())?);
        let end = usize::try_from(partition).ok().and_then(|place| self.ends.get(place)).copied().unwrap_or(0);
        Ok(SessionState {
            expiry_s: self.arguments.expiry_s,
            life: Life::Disconnected { since_ms: 0 },
            subscriptions: vec![SubscriptionState { filter, options, id: None, starts: Vec::new() }],
            position: Position {
                following: false,
                from: vec![(Place { topic: self.topic, partition }, end)],
                in_flight: Vec::new(),
            },
            ..SessionState::default()
        })
    }

    async fn append(&self, sequence: u64, number: u64, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let at = partition(SESSIONS, self.client(number).partition(self.journal.partitions(SESSIONS)));
        let record = RecordRef { key: Some(key), value, headers: &[], timestamp_ms: clock::wall_ms() };
        loop {
            match self.journal.append(Ticket { owner: 0, sequence }, at, &record) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Full) => self.journal.room().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn flush(&self) -> Result<()> {
        if !self.journal.flush(LIMIT).await || self.acks.lost.load(Ordering::Acquire) > 0 {
            return Err("Kafka did not take all records".into());
        }
        Ok(())
    }
}

/// Different for each claim, the same in every run.
fn nonce(number: u64) -> Nonce {
    let mut bytes = *b"........seed....";
    let (head, _) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Nonce(bytes)
}
