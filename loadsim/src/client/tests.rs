use millrace::mqtt::packet::ConnAckProperties;

use super::*;

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
    let subscriber = Subscriber { filter: "t/#".into(), qos: QoS::AtLeastOnce };
    Client::new(Role::Subscriber(Box::new(subscriber)), V5, 60)
}

fn publisher(qos: QoS) -> Client {
    Client::new(Role::Publisher(Box::new(Publisher::new(0, "t".to_owned(), qos, 100))), V5, 60)
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
