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

HANDLED: Mapping[str, frozenset[str]] = {
    "api": readable_events() | {SMALL_FACTS, SESSION_IDS},
    "projector": readable_events() | {SMALL_FACTS, SESSION_IDS},
    # It carries events as they are.
    "relay": frozenset(),
    # It reads what stands beside streams, not their events.
    "keeper": frozenset({SESSION_IDS}),
}
