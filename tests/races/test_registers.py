"""One thing is changed all the time by one worker after the other, and read by all workers all the time.

Each answer must be a state of some moment of the request, so not older than the last change that was acknowledged
before it began. An answer that was read in the middle of a change, and kept, would be older.

The long form is `make test-long PART=registers`.
"""

import itertools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.api import image, sha256
from tests.races.clients import Api, put_manifest, put_whole_blob, together
from tests.races.workers import WorkerConnection
from tests.servers import RunningServer, serving

WORKERS = 3
LAYER = b"layer"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def three_workers() -> Iterator[RunningServer]:
    """A server with more workers than the usual one."""
    with serving({"TAGTRAIL_WORKERS": str(WORKERS)}, "--no-access-log") as running:
        yield running


@dataclass
class Register:
    """A thing with one value at a time: how change number N is made, the value after it, and how it is read."""

    change: Callable[[Api, int], None]
    value: Callable[[int], Hashable]
    read: Callable[[Api], Hashable]
    begun: int = 0
    acknowledged: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def write(self, apis: Sequence[Api], times: int) -> int:
        """Change it so often, by one worker after the other; after each change the next worker is asked at once."""
        try:
            for number in range(1, times + 1):
                self.begun = number
                self.change(apis[number % len(apis)], number)
                self.acknowledged = number
                assert self.read(apis[(number + 1) % len(apis)]) == self.value(number)
            return times
        finally:
            self.ended.set()

    def watch(self, api: Api) -> int:
        """Read it by one worker until it is changed no more; answers the number of reads."""
        for reads in itertools.count():
            oldest = self.acknowledged
            found = self.read(api)
            possible = {self.value(number) for number in range(oldest, self.begun + 1)}
            assert found in possible, f"{found} after change {oldest}, not {possible}"
            if self.ended.is_set():
                return reads
        raise AssertionError


def tag(repository: str) -> Register:
    """A tag that is moved to another manifest each time, and deleted each fourth time."""
    path = f"/v2/{repository}/manifests/latest"

    def body(number: int) -> bytes:
        return image(LAYER, LAYER, annotations={"number": str(number)})

    def change(api: Api, number: int) -> None:
        deleting = number % 4 == 0
        answer = api.ask("DELETE", path) if deleting else put_manifest(api, repository, "latest", body(number))
        assert answer.status == (202 if deleting else 201)

    return Register(
        change,
        lambda number: None if number % 4 == 0 else sha256(body(number)),
        lambda api: api.ask("GET", path).headers.get("docker-content-digest"),
    )


def manifest(repository: str) -> Register:
    """A manifest that is pushed and deleted in turn, asked for by digest."""
    body = image(LAYER, LAYER)
    path = f"/v2/{repository}/manifests/{sha256(body)}"

    def change(api: Api, number: int) -> None:
        pushing = bool(number % 2)
        answer = put_manifest(api, repository, sha256(body), body) if pushing else api.ask("DELETE", path)
        assert answer.status == (201 if pushing else 202)

    return Register(change, lambda number: 200 if number % 2 else 404, lambda api: api.ask("GET", path).status)


def blob(repository: str) -> Register:
    """A blob that is linked and unlinked in turn."""
    data = repository.encode()
    path = f"/v2/{repository}/blobs/{sha256(data)}"

    def change(api: Api, number: int) -> None:
        pushing = bool(number % 2)
        status = put_whole_blob(api, repository, data) if pushing else api.ask("DELETE", path).status
        assert status == (201 if pushing else 202)

    return Register(change, lambda number: 200 if number % 2 else 404, lambda api: api.ask("HEAD", path).status)


@pytest.mark.parametrize("made", [tag, manifest, blob])
@pytest.mark.parametrize("changes", [100, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_read_is_older_than_what_was_acknowledged(
    three_workers: RunningServer, made: Callable[[str], Register], changes: int
) -> None:
    """The things that are changed and read are a tag, a manifest by digest, and a blob."""
    repository = f"races/register{next(_numbers)}"
    connect = partial(WorkerConnection, three_workers)
    workers = three_workers.workers()
    put_whole_blob(connect(workers[0]), repository, LAYER)
    register = made(repository)
    writing = partial(register.write, [connect(each) for each in workers], changes)
    _, *reads = together([writing, *(partial(register.watch, connect(each)) for each in workers)])
    print(f"{changes} changes, {reads} reads beside them")
    assert all(reads)
