//! What is in the log at the end of a run.

use std::collections::BTreeMap;

use millrace::journal::memory::{IncarnationId, SharedLog};
use millrace::journal::{Isolation, Offset, Partition, TopicIndex};
use millrace::ledger::record::{self, Key};
use millrace::message::{self, Header};

use crate::history::{Digest, Name};
use crate::run::STARTED_MS;
use crate::scenes::SESSIONS;

/// A record of the message topic that holds a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) topic: String,
    pub(crate) name: Name,
    pub(crate) retain: bool,
    /// By the wall clock of whoever appended it, from the start of the run on.
    pub(crate) at_ms: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct LogView {
    /// In the order of partition and offset.
    pub(crate) written: Vec<Written>,
    pub(crate) digest: Digest,
    /// Keys of sessions that hold a value, and whose they are.
    pub(crate) sessions: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Records by kafka topic.
    pub(crate) counts: BTreeMap<String, usize>,
}

impl LogView {
    /// Reads all that a reader of committed records finds.
    pub(crate) fn read(log: &SharedLog, messages: &str, others: &[String]) -> Self {
        let names: Vec<String> = std::iter::once(messages.to_owned()).chain(others.iter().cloned()).collect();
        let mut view = Self::default();
        let id = log.with(|log| log.open(names.clone()));
        for (index, name) in names.iter().enumerate() {
            let topic = TopicIndex(u16::try_from(index).unwrap());
            for number in 0..log.with(|log| log.partitions(id, topic)) {
                view.read_partition(log, id, Partition { topic, number }, name);
            }
        }
        view
    }

    fn read_partition(&mut self, log: &SharedLog, id: IncarnationId, partition: Partition, name: &str) {
        let ends = log.with(|log| log.ends(id, &[partition])).unwrap()[0];
        let mut next = ends.log_start;
        while next < ends.last_stable {
            let answer = log.with(|log| log.read(id, partition, next, usize::MAX, Isolation::ReadCommitted)).unwrap();
            assert!(answer.next > next, "a read that does not advance");
            next = answer.next;
            for record in answer.batches.iter().flatten() {
                *self.counts.entry(name.to_owned()).or_default() += 1;
                self.digest
                    .add(format!("{name} {} {:?} {}", partition.number, record.offset, record.timestamp_ms).as_bytes());
                self.digest.add(record.key.unwrap_or(b"-"));
                self.digest.add(record.value().unwrap_or(b"-"));
                for header in record.headers() {
                    self.digest.add(header.name.as_bytes());
                    self.digest.add(header.value.unwrap_or(b"-"));
                }
                if name == SESSIONS
                    && let Some(key) = record.key
                {
                    self.add_session(key, record.value().is_some());
                }
                if partition.topic == TopicIndex(0) {
                    let headers: Vec<_> = record.headers().collect();
                    let at = (record.offset, record.timestamp_ms - STARTED_MS);
                    self.add_message(partition.number, at, record.key, record.value(), &headers);
                }
            }
        }
    }

    fn add_session(&mut self, key: &[u8], has_value: bool) {
        let Ok(Key::Of { subject, .. }) = record::parse(key) else { return };
        if has_value {
            self.sessions.insert(key.to_owned(), subject.to_owned());
        } else {
            self.sessions.remove(key);
        }
    }

    fn add_message(
        &mut self,
        partition: u32,
        (offset, at_ms): (Offset, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        let (Some(key), Some(value)) = (key, value) else { return };
        if message::is_fence(headers.iter().copied()) {
            return;
        }
        let (Ok(topic), Some(name)) = (std::str::from_utf8(key), Name::parse(value)) else { return };
        let retain = headers.iter().any(|header| header.name == "mqtt-retain" && header.value == Some(b"1"));
        self.written.push(Written { partition, offset: offset.0, topic: topic.to_owned(), name, retain, at_ms });
    }

    /// Where each message is, in the order of the log.
    pub(crate) fn places(&self) -> BTreeMap<Name, Vec<&Written>> {
        let mut places: BTreeMap<Name, Vec<&Written>> = BTreeMap::new();
        for written in &self.written {
            places.entry(written.name).or_default().push(written);
        }
        places
    }
}
