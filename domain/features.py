"""The features that each kind of process handles. One is used once every live process of the kinds concerned has it.

A feature is an event type with its schema version (`TagMoved.1`), or the name of anything else that older processes
would get wrong, such as a new kind of id. Each kind of process declares what it handles.
"""

from collections.abc import Mapping

from domain.events import readable_events

# Facts of a manifest may lack large annotations, which are read from the manifest itself then.
SMALL_FACTS = "small-facts"
# Ids of upload sessions that prove themselves, and states beside their streams that hold a proof.
SESSION_IDS = "session-ids"

# Sessions stand in a log of their own, in which they are looked for and ended, and from which they are relayed.
UPLOADS_LOG = "uploads-log"

HANDLED: Mapping[str, frozenset[str]] = {
    "api": readable_events() | {SMALL_FACTS, SESSION_IDS, UPLOADS_LOG},
    "projector": readable_events() | {SMALL_FACTS, SESSION_IDS, UPLOADS_LOG},
    # It carries events as they are.
    "relay": frozenset({UPLOADS_LOG}),
    # It reads what stands beside streams, not their events.
    "keeper": frozenset({SESSION_IDS, UPLOADS_LOG}),
}
