"""Reads the whole log after a race, and judges it by a few lines that share nothing with the product's folds."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from domain.streams import UPLOAD_PREFIX, link_stream, manifest_stream
from eventstore.store import Store
from eventstore.types import Recorded
from tests.sessions import happened_to

PAGE_EVENTS = 5_000


@contextmanager
def log_of(database_url: str) -> Iterator[Store]:
    """The store of a running server, to read it."""
    store = Store(database_url, pool_size=1)
    try:
        yield store
    finally:
        store.close()


def events_of(store: Store, key: str | None = None, *types: str) -> list[Recorded]:
    """All events of a key, or of the whole log, in order."""
    found: list[Recorded] = []
    while page := store.read_log(found[-1].position if found else 0, PAGE_EVENTS, key=key, types=types or None):
        found += page
    return found


def events_of_stream(store: Store, stream: str) -> list[Recorded]:
    """All events of a stream, in order."""
    if stream.startswith(UPLOAD_PREFIX):
        return happened_to(store, stream.removeprefix(UPLOAD_PREFIX))
    found: list[Recorded] = []
    while page := store.read_stream(stream, len(found), PAGE_EVENTS):
        found += page
    return found


def assert_chained(events: list[Recorded]) -> None:
    """Check that each event of a tag's stream names the manifest that the one before had set, the first one none."""
    named: str | None = None
    for number, each in enumerate(events, 1):
        assert (each.version, each.prev_ref) == (number, named), each
        data = json.loads(each.data)
        named = manifest_stream(each.key, data["digest"]) if each.type == "TagMoved" else None


def assert_manifests_stood(store: Store, repository: str) -> int:
    """Check that all that a manifest names was there when it was accepted; answers how many were accepted.

    The names are read from the bytes of the manifests, not from the facts that the product made of them. It also checks
    that after each command no tag names a manifest that is gone.
    """
    refs: dict[str, str | None] = {}
    accepted = 0
    events = events_of(store, repository)
    for number, each in enumerate(events):
        data: dict[str, Any] = json.loads(each.data)
        match each.type:
            case "BlobLinked":
                refs[each.stream] = "live"
            case "ManifestPushed":
                accepted += 1
                content = store.get_content(data["digest"])
                named = ["its content"] if content is None else needed(repository, content.body)
                missing = [name for name in named if refs.get(name) is None]
                assert missing == [], f"position {each.position}: {each.stream} was accepted without {missing}"
                refs[each.stream] = "present"
            case "TagMoved":
                refs[each.stream] = manifest_stream(repository, data["digest"])
            case "BlobUnlinked" | "ManifestDeleted" | "TagDeleted":
                assert refs.get(each.stream) is not None, f"position {each.position}: {each.type} of nothing"
                refs[each.stream] = None
        if number + 1 == len(events) or events[number + 1].request_id != each.request_id:
            dangling = {s: r for s, r in refs.items() if s.startswith("tag-") and r is not None and refs.get(r) is None}
            assert dangling == {}, f"position {each.position}"
    return accepted


def needed(repository: str, body: bytes) -> list[str]:
    """The streams of everything that a manifest of ours needs: links for an image, manifests for an index."""
    document = json.loads(body)
    if "manifests" in document:
        return [manifest_stream(repository, each["digest"]) for each in document["manifests"]]
    return [link_stream(repository, each["digest"]) for each in (document["config"], *document["layers"])]
