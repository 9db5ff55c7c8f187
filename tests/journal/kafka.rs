//! The Kafka journal on a real Kafka, whose address is in `MILLRACE_TEST_KAFKA`.

use std::sync::Arc;
use std::time::Duration;

use millrace::journal::kafka::{FenceForm, KafkaJournal, KafkaOptions};
use millrace::journal::{AckGroup, AckSink, Journal, Partition, SharedJournal, TopicIndex, TopicSpec};

use super::fixture::Fixture;

pub struct KafkaFixture {
    bootstrap: Vec<String>,
}

struct NoAcks;

impl AckSink for NoAcks {
    fn on_acks(&self, _group: &AckGroup<'_>) {}
    fn flush(&self) {}
}

impl KafkaFixture {
    pub fn new() -> Option<Self> {
        let address = std::env::var("MILLRACE_TEST_KAFKA").ok().filter(|address| !address.is_empty())?;
        Some(Self { bootstrap: address.split(',').map(str::to_owned).collect() })
    }

    async fn journal(&self, options: KafkaOptions, topics: Vec<String>, sink: Arc<dyn AckSink>) -> KafkaJournal {
        KafkaJournal::open(options, topics, sink).await.unwrap()
    }
}

impl Fixture for KafkaFixture {
    async fn open(&self, specs: &[TopicSpec], append_bytes_max: usize, sink: Arc<dyn AckSink>) -> SharedJournal {
        let options = KafkaOptions { append_bytes_max, ..KafkaOptions::new(self.bootstrap.clone()) };
        let creator = self.journal(options.clone(), Vec::new(), Arc::new(NoAcks)).await;
        let mut created = specs.to_vec();
        for spec in &mut created {
            // The records of the contract are dated long ago.
            spec.configs.push(("retention.ms".to_owned(), "-1".to_owned()));
        }
        creator.create(&created).await.unwrap();
        Arc::new(self.journal(options, specs.iter().map(|spec| spec.name.clone()).collect(), sink).await)
    }

    async fn leave_hole(&self, topic: &str, number: u32) -> bool {
        let options = KafkaOptions::new(self.bootstrap.clone());
        let journal = self.journal(options, vec![topic.to_owned()], Arc::new(NoAcks)).await;
        let partition = Partition { topic: TopicIndex(0), number };
        let producer = journal.producer_id();
        let fenced = journal.fence_as(FenceForm::Marker, producer, &[partition], Duration::from_secs(20)).await;
        fenced[0].clone().unwrap();
        true
    }
}
