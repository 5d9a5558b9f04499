"""Print every move of a tag as it happens: python follow_tags.py KAFKA_HOST:PORT"""

import json
import sys

from kafka import KafkaConsumer, TopicPartition

TOPIC = "tagtrail.events.v1"
consumer = KafkaConsumer(bootstrap_servers=sys.argv[1], group_id=None, auto_offset_reset="earliest")
partitions = [TopicPartition(TOPIC, each) for each in consumer.partitions_for_topic(TOPIC)]
consumer.assign(partitions)
consumer.seek_to_beginning(*partitions)
last: dict[int, int] = {}  # keep this beside your own data, written in the same transaction

for message in consumer:
    about = {name.removeprefix("ce_"): value.decode() for name, value in message.headers}
    position, previous = int(about["pos"]), int(about["prev"])
    seen = last.get(message.partition, 0)
    if position <= seen:
        continue  # a repetition
    if previous > seen and seen:
        print(f"missed ({seen}, {previous}]: ask `tagtrail events tail --from {seen + 1}`", file=sys.stderr)
    last[message.partition] = position
    if about["type"] == "tagtrail.TagMoved":
        moved = json.loads(message.value)
        print(f"{about['time']} {moved['repository']}:{moved['tag']} -> {moved['digest']}", flush=True)
