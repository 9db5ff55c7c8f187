//! Which kafka topics there are, and creating those that are not.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{CreateTopicsRequest, DescribeConfigsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Admin, Failure, call};
use crate::journal::kafka::connection::Connection;
use crate::journal::kafka::metadata::{self, topic_name};
use crate::journal::kafka::wire::{self, code};
use crate::journal::{JournalError, TopicDescription, TopicSpec};

/// Kafka's number of the resource type "topic".
const TOPIC_RESOURCE: i8 = 2;
/// How long Kafka may take to create topics.
const CREATE_WAIT: Duration = Duration::from_secs(5);

impl Admin {
    /// What the cluster has under these names.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn describe(&self, names: &[String]) -> Result<Vec<Option<TopicDescription>>, JournalError> {
        let topics: Vec<TopicName> = names.iter().map(|name| topic_name(name)).collect();
        self.persist("the kafka topics' descriptions", async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            let mut described = described(&connection, &topics).await?;
            configs(&connection, &mut described).await?;
            Ok(names.iter().map(|name| described.get(name).cloned()).collect())
        })
        .await
    }

    /// Creates the kafka topics that do not exist, and waits until they can be used.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn create(&self, specs: &[TopicSpec]) -> Result<(), JournalError> {
        if specs.is_empty() {
            return Ok(());
        }
        self.persist("to create kafka topics", async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            let answer = call(&connection, &request(specs), CREATE_WAIT).await?;
            connection.hold_back(answer.throttle_time_ms);
            for topic in &answer.topics {
                match topic.error_code {
                    code::NONE | code::TOPIC_ALREADY_EXISTS => {}
                    code::NOT_CONTROLLER | code::REQUEST_TIMED_OUT | code::THROTTLING_QUOTA_EXCEEDED => {
                        return Err(Failure::Passing(wire::words(topic.error_code)));
                    }
                    error => {
                        let message = topic.error_message.as_deref().unwrap_or_default();
                        return Err(Failure::Final(format!(
                            "{}: {} {message}",
                            topic.name.as_str(),
                            wire::words(error)
                        )));
                    }
                }
            }
            Ok(())
        })
        .await?;
        let topics: Vec<TopicName> = specs.iter().map(|spec| topic_name(&spec.name)).collect();
        self.persist("the new kafka topics' leaders", async || {
            let connection = self.control.to_any().await.map_err(Failure::Passing)?;
            let led = described(&connection, &topics).await?;
            if led.len() == specs.len() { Ok(()) } else { Err(Failure::Passing("some are not there yet".to_owned())) }
        })
        .await
    }
}

fn request(specs: &[TopicSpec]) -> CreateTopicsRequest {
    let topics = specs.iter().map(|spec| {
        let configs = spec.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        CreatableTopic::default()
            .with_name(topic_name(&spec.name))
            .with_num_partitions(i32::try_from(spec.partitions).unwrap_or(i32::MAX))
            .with_replication_factor(
                spec.replication_factor.map_or(-1, |count| i16::try_from(count).unwrap_or(i16::MAX)),
            )
            .with_configs(configs.collect())
    });
    CreateTopicsRequest::default()
        .with_topics(topics.collect())
        .with_timeout_ms(i32::try_from(CREATE_WAIT.as_millis()).unwrap_or(i32::MAX))
}

/// Those that exist, by name, without their configs. One without a leader counts as not ready.
async fn described(
    connection: &Connection,
    topics: &[TopicName],
) -> Result<BTreeMap<String, TopicDescription>, Failure> {
    let mut described = BTreeMap::new();
    if topics.is_empty() {
        return Ok(described);
    }
    let answer = metadata::ask(connection, topics).await.map_err(Failure::Passing)?;
    for topic in answer.topics {
        let Some(name) = topic.name.map(|name| name.to_string()) else { continue };
        match topic.error_code {
            code::NONE => {}
            code::UNKNOWN_TOPIC_OR_PARTITION | code::INVALID_TOPIC => continue,
            error => return Err(Failure::of(error)),
        }
        if topic.partitions.iter().any(|partition| *partition.leader_id < 0) {
            return Err(Failure::Passing(format!("{name} has a partition without a leader")));
        }
        let copies = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max();
        let description = TopicDescription {
            name: name.clone(),
            topic_id: topic.topic_id.as_u128(),
            partitions: u32::try_from(topic.partitions.len())?,
            replication_factor: u16::try_from(copies.unwrap_or(0))?,
            configs: Vec::new(),
        };
        described.insert(name, description);
    }
    Ok(described)
}

async fn configs(connection: &Connection, described: &mut BTreeMap<String, TopicDescription>) -> Result<(), Failure> {
    if described.is_empty() {
        return Ok(());
    }
    let resources = described.keys().map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(StrBytes::from_string(name.clone()))
            .with_configuration_keys(None)
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.collect());
    let answer = call(connection, &request, Duration::ZERO).await?;
    connection.hold_back(answer.throttle_time_ms);
    for result in answer.results {
        if result.error_code != code::NONE {
            return Err(Failure::of(result.error_code));
        }
        let Some(description) = described.get_mut(result.resource_name.as_str()) else { continue };
        let configs =
            result.configs.into_iter().filter_map(|config| Some((config.name.to_string(), config.value?.to_string())));
        description.configs = configs.collect();
        description.configs.sort_unstable();
    }
    Ok(())
}
