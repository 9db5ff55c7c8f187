//! Connections for questions that are asked now and then: one per node, opened when first needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::connection::Connection;
use super::metadata::Metadata;
use super::options::KafkaOptions;
use super::stats::Pulse;

/// Holds a node's connection, if there is one, and lets one caller at a time open it.
type Place = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// See the module.
pub struct Pool {
    options: Arc<KafkaOptions>,
    metadata: Metadata,
    places: Mutex<BTreeMap<i32, Place>>,
}

impl Pool {
    /// Without connections.
    pub fn new(options: Arc<KafkaOptions>, metadata: Metadata) -> Self {
        Self { options, metadata, places: Mutex::default() }
    }

    /// A connection to this node.
    ///
    /// # Errors
    /// In words.
    pub async fn to(&self, node: i32) -> Result<Connection, String> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(places.entry(node).or_default())
        };
        let mut place = place.lock().await;
        if let Some(connection) = place.as_ref()
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let endpoint = self.metadata.cluster().nodes.get(&node).cloned();
        let endpoint = endpoint.ok_or_else(|| format!("Kafka node {node} is not known"))?;
        let opened = Connection::open(&endpoint, &self.options, Pulse::unwatched()).await;
        let connection = opened.map_err(|error| error.to_string())?;
        *place = Some(connection.clone());
        Ok(connection)
    }

    /// A connection to the controller, else to any node.
    ///
    /// # Errors
    /// No node could be reached; the last one's error.
    pub async fn to_any(&self) -> Result<Connection, String> {
        let cluster = self.metadata.cluster();
        let mut last = "no Kafka node is known".to_owned();
        for node in cluster.controller.into_iter().chain(cluster.nodes.keys().copied()) {
            match self.to(node).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
