use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::Encodable;

use super::*;
use crate::journal::kafka::metadata::topic_name;

#[test]
fn the_frame_is_what_the_codec_writes_in_every_version() {
    let batches =
        vec![(0, Bytes::from(vec![1; 100])), (7, Bytes::from(vec![2; 200])), (300, Bytes::from(vec![3; 70_000]))];
    let topics = [
        TopicBatches { name: topic_name("mqtt.messages"), batches: batches.clone() },
        TopicBatches { name: topic_name(&"n".repeat(200)), batches: batches[..1].to_vec() },
    ];
    let client_id = StrBytes::from_static_str("millrace");
    for version in wire::PRODUCE_SPOKEN {
        let own = frame(&topics, 1234, version, 99, &client_id).unwrap();
        let own: Vec<u8> = own.chunks.concat();
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1234).with_topic_data(
            topics
                .iter()
                .map(|topic| {
                    TopicProduceData::default().with_name(topic.name.clone()).with_partition_data(
                        topic
                            .batches
                            .iter()
                            .map(|(number, batch)| {
                                PartitionProduceData::default().with_index(*number).with_records(Some(batch.clone()))
                            })
                            .collect(),
                    )
                })
                .collect(),
        );
        let header_version = ProduceRequest::header_version(version);
        let mut codec = wire::begin(wire::PRODUCE, version, header_version, 99, &client_id).unwrap();
        request.encode(&mut codec, version).unwrap();
        wire::set_length(&mut codec, 0);
        assert_eq!(own, codec.to_vec(), "version {version}");
    }
}
