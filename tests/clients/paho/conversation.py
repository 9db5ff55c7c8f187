"""What the Paho scripts share: a connection, and one JSON object a line for each thing that was seen."""

import base64
import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

LIMIT_S = 20
PROTOCOLS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


def say(saw, **what):
    print(json.dumps({"saw": saw, **what}), flush=True)


def publish_properties(given):
    """Of a PUBLISH, from a JSON object with the names that Paho has for them."""
    properties = Properties(PacketTypes.PUBLISH)
    for name, value in given.items():
        if name == "CorrelationData":
            value = base64.b64decode(value)
        if name == "UserProperty":
            value = [tuple(pair) for pair in value]
        setattr(properties, name, value)
    return properties


def as_json(properties):
    """A PUBLISH's properties as a JSON object."""
    seen = {}
    for name in (
        "PayloadFormatIndicator",
        "MessageExpiryInterval",
        "ContentType",
        "ResponseTopic",
        "CorrelationData",
        "SubscriptionIdentifier",
        "UserProperty",
    ):
        if properties is not None and hasattr(properties, name):
            value = getattr(properties, name)
            seen[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return seen


class Conversation:
    """A client whose events are taken one after the other."""

    def __init__(self, address, version, client_id):
        self.events = queue.Queue()
        self.version = version
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=PROTOCOLS[version], reconnect_on_failure=False
        )
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put(("connack", reason, flags))
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.events.put(("suback", reasons))
        self.client.on_unsubscribe = lambda c, u, mid, reasons, p: self.events.put(("unsuback", reasons))
        self.client.on_publish = lambda c, u, mid, reason, p: self.events.put(("puback", reason))
        self.client.on_message = lambda c, u, message: self.events.put(("message", message))
        self.client.on_disconnect = lambda c, u, flags, reason, p: self.events.put(("disconnect", reason))
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    def connect(self):
        self.client.connect(self.host, self.port, keepalive=30)
        self.client.loop_start()
        reason, flags = self.next("connack")
        say("connack", reason=reason.value, session_present=flags.session_present)
        if reason.is_failure:
            sys.exit(f"CONNACK {reason}")

    def next(self, wanted):
        """The next event, which must be this one; without its name."""
        name, *rest = self.events.get(timeout=LIMIT_S)
        if name != wanted:
            sys.exit(f"{name} {rest} where {wanted} should come")
        return rest if len(rest) > 1 else rest[0]

    def message(self):
        message = self.next("message")
        say(
            "message",
            topic=message.topic,
            payload=base64.b64encode(message.payload).decode(),
            qos=message.qos,
            retain=message.retain,
            properties=as_json(message.properties if self.version == "5" else None),
        )

    def end(self):
        self.client.disconnect()
        self.next("disconnect")
        self.client.loop_stop()
        say("end")
