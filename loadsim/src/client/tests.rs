use millrace::mqtt::packet::ConnAckProperties;

use super::*;
use crate::publisher::Topics;

const V5: ProtocolVersion = ProtocolVersion::V5;

fn frame(packet: &Packet<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    encode::packet(packet, V5, usize::MAX, &mut out).unwrap();
    out
}

fn connack(reason: ReasonCode, properties: ConnAckProperties<'static>) -> BytesMut {
    frame(&Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })))
}

fn suback(reason: ReasonCode) -> BytesMut {
    let reasons = vec![reason].into();
    frame(&Packet::SubAck(SubAck { packet_id: SUBSCRIBE_ID, properties: ReasonProperties::default(), reasons }))
}

fn message(delivery: Delivery) -> BytesMut {
    frame(&Packet::Publish(Publish {
        dup: false,
        delivery,
        retain: false,
        topic: "t",
        properties: millrace::mqtt::packet::PublishProperties::default(),
        payload: b"hello",
    }))
}

fn subscriber() -> Client {
    client(Role::Subscriber(Box::new(Subscriber::new("t/#".into(), QoS::AtLeastOnce))), Lasting::NOT)
}

fn client(role: Role, lasting: Lasting) -> Client {
    Client::new(role, V5, 60, lasting)
}

fn publisher(qos: QoS) -> Client {
    let topics = Topics { first: 0, names: vec!["t".into()] };
    client(Role::Publisher(Box::new(Publisher::new(0, topics, qos, 100))), Lasting::NOT)
}

/// What the client says to a frame, and what it writes.
fn handle(client: &mut Client, frame: &[u8]) -> (Result<String, String>, BytesMut) {
    let mut out = BytesMut::new();
    let result = client.handle_frame(frame, &mut out);
    (result.map(|event| format!("{event:?}")).map_err(|error| error.to_string()), out)
}

fn ready(mut client: Client) -> Client {
    assert!(handle(&mut client, &connack(ReasonCode::Success, ConnAckProperties::default())).0.is_ok());
    if client.state() == State::Subscribing {
        assert_eq!(handle(&mut client, &suback(ReasonCode::GrantedQoS1)).0.unwrap(), "Ready");
    }
    assert_eq!(client.state(), State::Ready);
    client
}

#[test]
fn a_subscriber_subscribes_and_acknowledges_what_comes_at_qos_1() {
    let mut client = ready(subscriber());
    let id = PacketId::new(9).unwrap();
    let (event, out) = handle(&mut client, &message(Delivery::AtLeastOnce(id)));
    assert!(event.unwrap().starts_with("Message"));
    let Packet::PubAck(ack) = decode::packet(&out, Some(V5), Sender::Client).unwrap() else { panic!("{out:?}") };
    assert_eq!(ack.packet_id, id);
    assert!(handle(&mut client, &message(Delivery::AtMostOnce)).1.is_empty());
}

#[test]
fn a_message_may_overtake_the_suback() {
    let mut client = subscriber();
    handle(&mut client, &connack(ReasonCode::Success, ConnAckProperties::default())).0.unwrap();
    assert!(handle(&mut client, &message(Delivery::AtMostOnce)).0.is_ok());
}

#[test]
fn refusals_say_what_was_refused_and_why() {
    let refusal = connack(ReasonCode::NotAuthorized, ConnAckProperties::default());
    let said = handle(&mut subscriber(), &refusal).0.unwrap_err();
    assert_eq!(said, "the broker refused CONNECT: NotAuthorized (0x87)");

    let mut client = subscriber();
    handle(&mut client, &connack(ReasonCode::Success, ConnAckProperties::default())).0.unwrap();
    let said = handle(&mut client, &suback(ReasonCode::NotAuthorized)).0.unwrap_err();
    assert_eq!(said, "the broker refused the subscription to `t/#`: NotAuthorized (0x87)");
}

#[test]
fn a_lower_qos_than_the_run_is_about_ends_it() {
    let properties = ConnAckProperties { maximum_qos: Some(QoS::AtMostOnce), ..ConnAckProperties::default() };
    let connack = connack(ReasonCode::Success, properties);
    assert!(handle(&mut publisher(QoS::AtLeastOnce), &connack).0.is_err());
    assert!(handle(&mut publisher(QoS::AtMostOnce), &connack).0.is_ok());

    let mut client = subscriber();
    handle(&mut client, &self::connack(ReasonCode::Success, ConnAckProperties::default())).0.unwrap();
    assert!(handle(&mut client, &suback(ReasonCode::Success)).0.is_err());
}

#[test]
fn the_broker_may_choose_the_keep_alive() {
    let properties = ConnAckProperties { server_keep_alive_s: Some(7), ..ConnAckProperties::default() };
    let mut client = publisher(QoS::AtMostOnce);
    handle(&mut client, &connack(ReasonCode::Success, properties)).0.unwrap();
    assert_eq!(client.keep_alive_s(), 7);
}

#[test]
fn an_acknowledgement_of_nothing_is_noticed() {
    let packet_id = PacketId::new(3).unwrap();
    let ack = Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() };
    let said = handle(&mut ready(publisher(QoS::AtLeastOnce)), &frame(&Packet::PubAck(ack))).0.unwrap_err();
    assert_eq!(said, "the broker acknowledged packet id 3, which nothing waits for");
}

#[test]
fn packets_out_of_place_end_the_conversation() {
    assert!(handle(&mut subscriber(), &message(Delivery::AtMostOnce)).0.is_err());
    assert!(handle(&mut ready(publisher(QoS::AtMostOnce)), &message(Delivery::AtMostOnce)).0.is_err());
    let two = Delivery::ExactlyOnce(PacketId::new(1).unwrap());
    assert!(handle(&mut ready(subscriber()), &message(two)).0.is_err());
    let again = connack(ReasonCode::Success, ConnAckProperties::default());
    assert!(handle(&mut ready(subscriber()), &again).0.is_err());
}

#[test]
fn a_second_ping_needs_the_answer_to_the_first() {
    let mut client = ready(publisher(QoS::AtMostOnce));
    let mut out = BytesMut::new();
    client.ping(&mut out).unwrap();
    assert_eq!(out[..], [0xC0, 0]);
    handle(&mut client, &frame(&Packet::PingResp)).0.unwrap();
    client.ping(&mut out).unwrap();
    assert!(matches!(client.ping(&mut out), Err(ClientError::NoPong)));
}

fn exact_subscriber() -> Client {
    let lasting = Lasting { clean_start: true, expiry_s: 60 };
    client(Role::Subscriber(Box::new(Subscriber::new("t".into(), QoS::ExactlyOnce))), lasting)
}

fn present(session_present: bool) -> BytesMut {
    let (reason, properties) = (ReasonCode::Success, ConnAckProperties::default());
    frame(&Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties })))
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// Its clean start flag and session expiry.
fn connects(client: &Client) -> (bool, Option<u32>) {
    let mut out = BytesMut::new();
    client.connect("c", (None, None), &mut out).unwrap();
    let packet = decode::packet(&out, None, Sender::Client).unwrap();
    let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
    (connect.clean_start, connect.properties.session_expiry_s)
}

#[test]
fn a_message_of_qos_2_counts_once_until_it_is_released() {
    let mut client = exact_subscriber();
    handle(&mut client, &present(false)).0.unwrap();
    handle(&mut client, &suback(ReasonCode::GrantedQoS2)).0.unwrap();
    let exact = message(Delivery::ExactlyOnce(id(5)));
    let (event, out) = handle(&mut client, &exact);
    assert!(event.unwrap().starts_with("Message"));
    assert_eq!(out, frame(&Packet::PubRec(ack(id(5)))));
    assert_eq!(handle(&mut client, &exact), (Ok("Nothing".to_owned()), out));

    client.on_disconnected();
    handle(&mut client, &present(true)).0.unwrap();
    assert_eq!(handle(&mut client, &exact).0.unwrap(), "Nothing", "the session remembers it");
    assert_eq!(handle(&mut client, &frame(&Packet::PubRel(ack(id(5))))).1, frame(&Packet::PubComp(ack(id(5)))));
    assert!(handle(&mut client, &exact).0.unwrap().starts_with("Message"), "the id is free");

    client.on_disconnected();
    handle(&mut client, &present(false)).0.unwrap();
    assert!(handle(&mut client, &exact).0.unwrap().starts_with("Message"), "a new session remembers nothing");
}

#[test]
fn a_session_that_lasts_is_gone_on_with_and_missed() {
    let mut client = exact_subscriber();
    assert_eq!(connects(&client), (true, Some(60)));
    assert!(handle(&mut client, &present(true)).0.is_err(), "the start was clean");
    handle(&mut client, &present(false)).0.unwrap();
    assert_eq!(client.continuity(), Continuity::New);
    handle(&mut client, &suback(ReasonCode::GrantedQoS2)).0.unwrap();

    client.on_disconnected();
    assert_eq!(connects(&client), (false, Some(60)));
    assert_eq!(handle(&mut client, &present(true)), (Ok("Ready".to_owned()), BytesMut::new()));
    assert_eq!(client.continuity(), Continuity::Resumed);

    client.on_disconnected();
    let (event, out) = handle(&mut client, &present(false));
    assert_eq!((event.unwrap().as_str(), client.continuity()), ("Nothing", Continuity::Lost));
    let packet = decode::packet(&out, Some(V5), Sender::Client).unwrap();
    assert_eq!(packet.packet_type(), PacketType::Subscribe);
}

#[test]
fn a_session_for_one_connection_begins_anew_each_time() {
    let mut client = ready(publisher(QoS::AtLeastOnce));
    client.on_disconnected();
    assert_eq!(connects(&client), (true, None));
    handle(&mut client, &present(false)).0.unwrap();
    assert_eq!(client.continuity(), Continuity::New);
}

#[test]
fn a_publisher_of_qos_2_releases_what_was_received_and_no_answer_fits_twice() {
    let mut client = ready(publisher(QoS::ExactlyOnce));
    let Role::Publisher(publisher) = &mut client.role else { panic!("it publishes") };
    let plan =
        crate::publisher::Plan { run: 1, publishers: 1, messages: 1, start_ns: 0, end_ns: u64::MAX, schedule: None };
    let line = Line { version: V5, frame_bytes_max: usize::MAX };
    publisher.fill(&plan, 1, line, &mut [0; 64], &mut BytesMut::new(), |_| {}).unwrap();
    let (received, released) = (frame(&Packet::PubRec(ack(id(1)))), frame(&Packet::PubRel(ack(id(1)))));
    let completed = frame(&Packet::PubComp(ack(id(1))));
    assert!(handle(&mut client, &completed).0.is_err());
    let (event, out) = handle(&mut client, &received);
    assert!(event.unwrap().starts_with("Answered"));
    assert_eq!(out, released);
    assert!(handle(&mut client, &received).0.is_err());
    assert_eq!(handle(&mut client, &completed).0.unwrap(), "Nothing");
    assert!(handle(&mut client, &completed).0.is_err());
}
