use std::pin::Pin;
use std::sync::Mutex;

use super::*;
use crate::config::{Flag, Sources, load};
use crate::journal::{
    Answer, Ends, Fenced, Health, Isolation, NotTaken, Offset, Partition, ReadAnswer, Tail, Ticket, TopicIndex,
};
use crate::message::RecordRef;

/// A cluster that knows kafka topics and nothing else.
#[derive(Default)]
struct Cluster {
    topics: Mutex<Vec<TopicDescription>>,
}

impl Cluster {
    fn with(specs: impl IntoIterator<Item = TopicSpec>) -> Self {
        let cluster = Self::default();
        for spec in specs {
            cluster.add(&spec);
        }
        cluster
    }

    fn add(&self, spec: &TopicSpec) {
        let mut topics = self.topics.lock().unwrap();
        let topic_id = topics.len() as u128 + 1;
        topics.push(TopicDescription {
            name: spec.name.clone(),
            topic_id,
            partitions: spec.partitions,
            replication_factor: spec.replication_factor.unwrap_or(1),
            configs: spec.configs.clone(),
        });
    }
}

impl Journal for Cluster {
    fn describe<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<TopicDescription>>> {
        let topics = self.topics.lock().unwrap();
        let found = names.iter().map(|name| topics.iter().find(|topic| topic.name == *name).cloned()).collect();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn create<'a>(&'a self, specs: &'a [TopicSpec]) -> Answer<'a, ()> {
        for spec in specs {
            self.add(spec);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn partitions(&self, _topic: TopicIndex) -> u32 {
        unimplemented!("not about records")
    }
    fn topic_id(&self, _topic: TopicIndex) -> Option<u128> {
        unimplemented!("not about records")
    }
    fn producer_id(&self) -> i64 {
        unimplemented!("not about records")
    }
    fn fence<'a>(&'a self, _: i64, _: &'a [Partition], _: Duration) -> Fenced<'a> {
        unimplemented!("not about records")
    }
    fn fencing<'a>(&'a self, _: &'a [String]) -> Answer<'a, Fencing> {
        unimplemented!("not about records")
    }
    fn append(&self, _: Ticket, _: Partition, _: &RecordRef<'_>) -> Result<(), NotTaken> {
        unimplemented!("not about records")
    }
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        unimplemented!("not about records")
    }
    fn flush(&self, _: Duration) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        unimplemented!("not about records")
    }
    fn tail(&self, _: Isolation) -> Box<dyn Tail> {
        unimplemented!("not about records")
    }
    fn ends<'a>(&'a self, _: &'a [Partition]) -> Answer<'a, Vec<Ends>> {
        unimplemented!("not about records")
    }
    fn read(&self, _: Partition, _: Offset, _: usize, _: Isolation) -> Answer<'_, ReadAnswer> {
        unimplemented!("not about records")
    }
    fn health(&self) -> Health {
        Health::default()
    }
}

fn config(settings: &[(&str, &str)]) -> Config {
    let flags = settings
        .iter()
        .map(|(key, value)| Flag { flag: "--set".to_owned(), key: (*key).to_owned(), value: (*value).to_owned() })
        .collect();
    load(&Sources { flags, ..Sources::default() }).unwrap().config
}

fn specs(config: &Config) -> Vec<TopicSpec> {
    wanted(config).into_iter().map(|wanted| wanted.spec).collect()
}

fn change(specs: &mut [TopicSpec], name: &str, key: &str, value: &str) {
    let spec = specs.iter_mut().find(|spec| spec.name == name).unwrap();
    spec.configs.iter_mut().find(|(name, _)| name == key).unwrap().1 = value.to_owned();
}

async fn differences(config: &Config, specs: Vec<TopicSpec>) -> Vec<(String, Difference)> {
    let plan = plan(&Cluster::with(specs), wanted(config)).await.unwrap();
    plan.entries
        .into_iter()
        .flat_map(|entry| entry.differences.into_iter().map(move |d| (entry.wanted.spec.name.clone(), d)))
        .collect()
}

#[test]
fn message_topics_come_first_in_the_order_of_the_mapping() {
    let rules = r#"[{filter="cars/#", kafka_topic="cars"}]"#;
    let config = config(&[("mapping.rules", rules)]);
    let names: Vec<_> = specs(&config).into_iter().map(|spec| spec.name).collect();
    let mapped = config.mapping.compiled.kafka_topics();
    assert_eq!(names[..mapped.len()], *mapped);
    assert_eq!(names[mapped.len()..], ["mqtt.retained", "mqtt.sessions", "mqtt.cluster"]);
}

#[test]
fn state_is_compacted_and_messages_are_not() {
    let specs = specs(&config(&[]));
    let value = |name: &str, key: &str| {
        let spec = specs.iter().find(|spec| spec.name == name).unwrap();
        spec.configs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    };
    assert_eq!(value("mqtt.messages", "cleanup.policy"), Some("delete"));
    assert_eq!(value("mqtt.messages", "retention.ms"), Some("604800000"));
    assert_eq!(value("mqtt.messages", "max.message.bytes"), None);
    for name in ["mqtt.retained", "mqtt.sessions", "mqtt.cluster"] {
        for (key, wanted) in [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "16777216"),
            ("segment.ms", "600000"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("min.compaction.lag.ms", "300000"),
            ("max.compaction.lag.ms", "3600000"),
            ("delete.retention.ms", "3600000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ] {
            assert_eq!(value(name, key), Some(wanted), "{name} {key}");
        }
    }
    for spec in &specs {
        assert!(spec.configs.is_sorted(), "{}", spec.name);
        assert_eq!(spec.replication_factor, Some(3));
    }
}

#[test]
fn large_batches_raise_the_limit_of_message_topics() {
    let specs = specs(&config(&[("kafka.batch_bytes_max", "4MiB")]));
    assert!(specs[0].configs.iter().any(|(key, value)| key == "max.message.bytes" && value == "4194304"));
}

#[tokio::test]
async fn what_apply_creates_needs_nothing_more() {
    let config = config(&[]);
    let cluster = Cluster::default();
    let before = plan(&cluster, wanted(&config)).await.unwrap();
    assert!(before.is_fatal());
    assert_eq!(before.missing().count(), 4);
    assert!(before.to_string().contains("+ mqtt.cluster: does not exist; wanted with 1 partitions, 3 copies"));
    let after = create_missing(&cluster, before).await.unwrap();
    assert!(!after.is_fatal());
    assert!(after.entries.iter().all(|entry| entry.exists && entry.differences.is_empty()), "{after}");
}

#[tokio::test]
async fn a_wrong_number_of_partitions_is_fatal_for_state_only() {
    let config = config(&[]);
    let mut specs = specs(&config);
    for spec in &mut specs {
        spec.partitions += 1;
    }
    let found = differences(&config, specs).await;
    let severities: Vec<_> = found.iter().map(|(name, d)| (name.as_str(), d.severity)).collect();
    assert_eq!(
        severities,
        [
            ("mqtt.messages", Severity::Warning),
            ("mqtt.retained", Severity::Fatal),
            ("mqtt.sessions", Severity::Fatal),
            ("mqtt.cluster", Severity::Fatal),
        ]
    );
    assert!(found[2].1.sentence.contains("set topics.sessions.partitions = 17"), "{}", found[2].1.sentence);
}

#[tokio::test]
async fn state_without_compaction_is_fatal() {
    for policy in ["delete", "compact,delete"] {
        let config = config(&[]);
        let mut specs = specs(&config);
        change(&mut specs, "mqtt.sessions", "cleanup.policy", policy);
        let found = differences(&config, specs).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.severity, Severity::Fatal);
        assert!(found[0].1.sentence.contains("--add-config cleanup.policy=compact"), "{}", found[0].1.sentence);
    }
}

#[tokio::test]
async fn tuning_differences_are_warnings() {
    let config = config(&[]);
    let mut specs = specs(&config);
    change(&mut specs, "mqtt.retained", "segment.bytes", "1073741824");
    change(&mut specs, "mqtt.messages", "retention.ms", "1000");
    change(&mut specs, "mqtt.messages", "cleanup.policy", "compact");
    specs[3].replication_factor = Some(1);
    let found = differences(&config, specs).await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|(_, difference)| difference.severity == Severity::Warning));
}

#[tokio::test]
async fn more_than_wanted_is_no_difference() {
    let config = config(&[]);
    let mut specs = specs(&config);
    change(&mut specs, "mqtt.messages", "retention.ms", "-1");
    change(&mut specs, "mqtt.retained", "min.insync.replicas", "3");
    change(&mut specs, "mqtt.retained", "min.cleanable.dirty.ratio", "0.10");
    specs[1].replication_factor = Some(5);
    assert_eq!(differences(&config, specs).await, []);
}

#[tokio::test]
async fn a_node_creates_kafka_topics_only_where_it_may() {
    let cluster = Cluster::default();
    assert!(prepare(&cluster, &config(&[])).await.unwrap().is_fatal());
    assert!(!prepare(&cluster, &config(&[("topics.create", "true")])).await.unwrap().is_fatal());
    assert!(!prepare(&cluster, &config(&[])).await.unwrap().is_fatal());
}
