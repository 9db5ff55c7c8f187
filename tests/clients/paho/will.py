"""will.py ADDRESS VERSION TOPIC: connects with a will and is gone."""

import os
import sys

from conversation import Conversation

address, version, topic = sys.argv[1:]
conversation = Conversation(address, version, "paho-mortal")
conversation.client.will_set(topic, "gone", 1)
conversation.connect()
sys.stdout.flush()
os._exit(0)
