"""subscribe.py ADDRESS VERSION FILTER QOS COUNT: subscribes, takes COUNT messages, unsubscribes, disconnects."""

import sys

from conversation import Conversation, say

address, version, topic_filter, qos, count = sys.argv[1:]
conversation = Conversation(address, version, "paho-subscriber")
conversation.connect()
conversation.client.subscribe(topic_filter, int(qos))
say("suback", reasons=[reason.value for reason in conversation.next("suback")])
for _ in range(int(count)):
    conversation.message()
conversation.client.unsubscribe(topic_filter)
conversation.next("unsuback")
say("unsuback")
conversation.end()
