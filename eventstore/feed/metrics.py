"""Counters of the feed's processes. prometheus-client adds up those of one machine."""

from prometheus_client import Counter

EVENTS_CONSUMED = Counter(
    "tagtrail_feed_events_total", "Events folded into read models, by where they came from", ["source"]
)
DUPLICATES = Counter("tagtrail_feed_duplicates_total", "Records of the feed that were known already")
HOLES = Counter("tagtrail_feed_holes_total", "Holes in the feed; their events are read from the store")
DISCARDED = Counter("tagtrail_feed_discarded_total", "Records of the feed that belong to another epoch of the log")
FEED_FAILURES = Counter("tagtrail_feed_failures_total", "Times that Kafka did not answer a consumer")
RELAYED = Counter("tagtrail_relay_records_total", "Records that Kafka acknowledged to the relay", ["topic"])
RELAY_FAILURES = Counter("tagtrail_relay_failures_total", "Times that the relay had to start again")
