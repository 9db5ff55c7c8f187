//! Requests and responses as bytes: what we ask of Kafka, in which versions, and its error codes.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceResponse, RequestHeader,
    ResponseHeader, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// A question to Kafka with the versions of it that we speak.
pub trait Call: Encodable + HeaderVersion + Sync {
    /// Kafka's number of it.
    const KEY: i16;
    /// Versions spoken here.
    const SPOKEN: RangeInclusive<i16>;
    /// What is answered.
    type Answer: Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($request:ty => $response:ty, $key:literal, $spoken:expr;)*) => {$(
        impl Call for $request {
            const KEY: i16 = $key;
            const SPOKEN: RangeInclusive<i16> = $spoken;
            type Answer = $response;
        }
    )*};
}

calls! {
    FetchRequest => FetchResponse, 1, 11..=13;
    ListOffsetsRequest => ListOffsetsResponse, 2, 2..=7;
    MetadataRequest => MetadataResponse, 3, 10..=12;
    ApiVersionsRequest => ApiVersionsResponse, 18, 3..=3;
    CreateTopicsRequest => CreateTopicsResponse, 19, 2..=7;
    InitProducerIdRequest => InitProducerIdResponse, 22, 0..=4;
    WriteTxnMarkersRequest => WriteTxnMarkersResponse, 27, 1..=1;
    DescribeConfigsRequest => DescribeConfigsResponse, 32, 1..=4;
}

/// Kafka's number of the Produce request, which is put together in `appender/produce.rs`.
pub const PRODUCE: i16 = 0;
/// Versions of it that we speak: from 13 on topics go by id.
pub const PRODUCE_SPOKEN: RangeInclusive<i16> = 3..=12;

/// A request ready for the wire.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What the answer must carry.
    pub correlation: i32,
    /// Length, header and body, in as many pieces as it was made of.
    pub chunks: Vec<Bytes>,
}

/// The start of a frame: a gap for the length, then the header.
///
/// # Errors
/// The codec does not know this header version.
pub fn begin(
    key: i16,
    version: i16,
    header_version: i16,
    correlation: i32,
    client_id: &StrBytes,
) -> Result<BytesMut, String> {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(client_id.clone()));
    let mut bytes = BytesMut::with_capacity(512);
    bytes.put_i32(0);
    header.encode(&mut bytes, header_version).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Fills in the length of a frame whose first chunk is `head` and whose other chunks have `rest_len` bytes.
pub fn set_length(head: &mut BytesMut, rest_len: usize) {
    let length = i32::try_from(head.len() - 4 + rest_len).unwrap_or(i32::MAX);
    if let Some(gap) = head.get_mut(..4) {
        gap.copy_from_slice(&length.to_be_bytes());
    }
}

/// `call` as one frame.
///
/// # Errors
/// A field that this version cannot carry.
pub fn encode<C: Call>(call: &C, version: i16, correlation: i32, client_id: &StrBytes) -> Result<Frame, String> {
    let mut bytes = begin(C::KEY, version, C::header_version(version), correlation, client_id)?;
    call.encode(&mut bytes, version).map_err(|error| error.to_string())?;
    set_length(&mut bytes, 0);
    Ok(Frame { correlation, chunks: vec![bytes.freeze()] })
}

/// A response, from behind its length.
///
/// # Errors
/// It is not one of this version.
pub fn decode<A: Decodable + HeaderVersion>(mut bytes: Bytes, version: i16) -> Result<A, String> {
    ResponseHeader::decode(&mut bytes, A::header_version(version)).map_err(|error| error.to_string())?;
    A::decode(&mut bytes, version).map_err(|error| error.to_string())
}

/// The answer to a Produce request.
///
/// # Errors
/// It is not one of this version.
pub fn decode_produce(bytes: Bytes, version: i16) -> Result<ProduceResponse, String> {
    decode(bytes, version)
}

/// The correlation id of a response.
pub fn correlation_of(mut frame: &[u8]) -> Option<i32> {
    frame.try_get_i32().ok()
}

/// Kafka's error codes that we act upon.
pub mod code {
    pub const NONE: i16 = 0;
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const MESSAGE_TOO_LARGE: i16 = 10;
    pub const INVALID_TOPIC: i16 = 17;
    pub const RECORD_LIST_TOO_LARGE: i16 = 18;
    pub const NOT_ENOUGH_REPLICAS: i16 = 19;
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
    pub const INVALID_TIMESTAMP: i16 = 32;
    pub const UNSUPPORTED_FOR_MESSAGE_FORMAT: i16 = 43;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const NOT_CONTROLLER: i16 = 41;
    pub const POLICY_VIOLATION: i16 = 44;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
    pub const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub const UNKNOWN_PRODUCER_ID: i16 = 59;
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    pub const INVALID_RECORD: i16 = 87;
    pub const THROTTLING_QUOTA_EXCEEDED: i16 = 89;
    pub const PRODUCER_FENCED: i16 = 90;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
}

/// An error code in words.
pub fn words(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| "no error".to_owned(), |error| format!("{error:?} ({code})"))
}
