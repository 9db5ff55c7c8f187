"""publish.py ADDRESS VERSION TOPIC QOS COUNT [PROPERTIES]: publishes the numbers below COUNT, disconnects."""

import json
import sys

from conversation import Conversation, publish_properties, say

address, version, topic, qos, count = sys.argv[1:6]
properties = publish_properties(json.loads(sys.argv[6])) if len(sys.argv) > 6 else None
conversation = Conversation(address, version, "paho-publisher")
conversation.connect()
for number in range(int(count)):
    conversation.client.publish(topic, str(number), int(qos), properties=properties)
for _ in range(int(count)):
    reason = conversation.next("puback")
    say("published", reason=reason.value)
conversation.end()
