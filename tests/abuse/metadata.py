"""Pushes the largest metadata to a running server and reads it: manifests of 4 MiB, long annotations, wide indexes."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from domain.media_types import OCI_INDEX, OCI_MANIFEST
from tests.api import sha256
from tests.large import NOT_HELD_TYPE, image_of, index_of, many
from tests.servers import RunningServer

NAME = "large/app"
CONFIG = b"{}"
SUBJECT = image_of(CONFIG, [])
LARGEST_BYTES = 4 * 1024 * 1024
PUSHERS = 4
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Amount:
    """The amount that is pushed.

    So many referrers of one subject and so many others get `size` bytes by their annotations. So many wide manifests
    name as many things as fit into `size`. An index has so many children.
    """

    referrers: int
    others: int
    wide: int
    children: int
    size: int = LARGEST_BYTES


@dataclass
class Pages:
    """A list that a client has read to its end: its digests, and the bytes and seconds of each page."""

    digests: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def long_text(size: int, number: int, **more: Any) -> bytes:
    """A manifest of this size, by its annotations."""
    frame = image_of(CONFIG, [], annotations={"n": f"{number:06d}", "text": ""}, **more)
    text = "x" * (size - len(frame))
    return image_of(CONFIG, [], annotations={"n": f"{number:06d}", "text": text}, **more)


def wide(size: int, number: int) -> bytes:
    """A manifest of this size that names as much as fits."""
    one = len(image_of(CONFIG, many(1, "0" * 6), media_type=NOT_HELD_TYPE)) - len(image_of(CONFIG, []))
    return image_of(CONFIG, many((size - 300) // (one + 1), f"{number:03d}-"), media_type=NOT_HELD_TYPE)


def referrer(amount: Amount, number: int) -> bytes:
    """A manifest about the subject."""
    subject = {"mediaType": OCI_MANIFEST, "digest": sha256(SUBJECT), "size": len(SUBJECT)}
    return long_text(amount.size, number, subject=subject)


def manifests(amount: Amount) -> Iterator[tuple[str, bytes]]:
    """The tag (or an empty text) and the bytes of every manifest that is pushed before the index."""
    yield "subject", SUBJECT
    for number in range(amount.referrers):
        yield "", referrer(amount, number)
    for number in range(amount.others):
        yield f"t{number}", long_text(amount.size, number)
    for number in range(amount.wide):
        yield f"wide{number}", wide(amount.size, number)
    for each in children_of_index(amount):
        yield "", each


def children_of_index(amount: Amount) -> list[bytes]:
    """The small manifests that the index names."""
    return [image_of(CONFIG, [], annotations={"child": str(number)}) for number in range(amount.children)]


@contextmanager
def connected(server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    """A connection to the server."""
    connection = http.client.HTTPConnection(server.host, timeout=TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def push_all(server: RunningServer, amount: Amount) -> None:
    """Push everything, a few manifests at a time."""
    with connected(server) as connection:
        connection.request("POST", f"/v2/{NAME}/blobs/uploads/?digest={sha256(CONFIG)}", CONFIG)
        assert connection.getresponse().read() == b""
    given = manifests(amount)
    taking = threading.Lock()

    def push_some() -> None:
        # Manifests are made one by one: all of them together would not fit into memory.
        while True:
            with taking:
                each = next(given, None)
            if each is None:
                return
            push(server, *each, OCI_MANIFEST)

    with ThreadPoolExecutor(PUSHERS) as pool:
        for done in [pool.submit(push_some) for _ in range(PUSHERS)]:
            done.result()
    push(server, "index", index_of(children_of_index(amount)), OCI_INDEX)


def push(server: RunningServer, tag: str, body: bytes, kind: str) -> None:
    """PUT a manifest."""
    with connected(server) as connection:
        connection.request("PUT", f"/v2/{NAME}/manifests/{tag or sha256(body)}", body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 201, (answer.status, text[:500])


def get(connection: http.client.HTTPConnection, path: str) -> tuple[bytes, str]:
    """The body and the address of the next page, if there is one."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, (path, answer.status, body[:500])
    return body, (answer.getheader("Link") or "").partition(">")[0].removeprefix("<")


def referrers_of_subject(server: RunningServer) -> Pages:
    """Read all referrers page by page; fails if one lacks its annotations or a page is too long for a client."""
    found, path = Pages(), f"/v2/{NAME}/referrers/{sha256(SUBJECT)}"
    with connected(server) as connection:
        while path:
            began = time.perf_counter()
            body, path = get(connection, path)
            found.took.append(time.perf_counter() - began)
            found.sizes.append(len(body))
            listed = json.loads(body)["manifests"]
            assert all("text" in each["annotations"] for each in listed)
            found.digests += [each["digest"] for each in listed]
    return found


def expected_referrers(amount: Amount) -> list[str]:
    """The digests of all referrers, in the order of the list."""
    return sorted(sha256(referrer(amount, number)) for number in range(amount.referrers))


def read_all(server: RunningServer, amount: Amount) -> Pages:
    """Read a part of every list, and all referrers; answers the pages of these."""
    pages = referrers_of_subject(server)
    assert pages.digests == expected_referrers(amount)
    with connected(server) as connection:
        tags = json.loads(get(connection, f"/v2/{NAME}/tags/list")[0])["tags"]
        assert len(tags) == amount.others + amount.wide + 2
        for tag in ("index", "subject", f"wide{amount.wide - 1}", "t0"):
            get(connection, f"/v2/{NAME}/manifests/{tag}")
        get(connection, f"/api/v1/repositories/{NAME}/history?n=1000")
        layer = sha256(many(1, "000-")[0])
        assert json.loads(get(connection, f"/api/v1/blobs/{layer}/references")[0])["count"] == 1
    return pages
