"""A list that is read page by page while tags come and go has each tag that existed throughout exactly once.

The long form with 100,000 tags is `make test-long PART=paging`.
"""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest

from tests.api import image, sha256
from tests.races.clients import Api, Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, jittering

SEED = 20261130
LAYERS = (b"one", b"another")
MANIFESTS = tuple(image(each) for each in LAYERS)
TAGS_A_REQUEST = 80  # Python reads no more than 100 headers, and each tag gets one
MOVERS = 4
SHORT, LONG = 3_000, 100_000


@dataclass
class Passing:
    """The times of a tag that comes and goes: when it may have been there, and when it certainly was."""

    asked: float
    made: float
    unasked: float = float("inf")
    unmade: float = float("inf")


@dataclass
class Churn:
    """Changes of a repository's tags at random: those that stay are moved, others come and go."""

    repository: str
    staying: list[str]
    chance: random.Random
    passing: dict[str, Passing] = field(default_factory=dict)
    changes: int = 0
    _there: list[str] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def run(self, api: Api, ended: threading.Event, name: int) -> None:
        """Change one after the other until told to end."""
        while not ended.is_set():
            match self.chance.randrange(5):
                case 0:
                    tag = self.chance.choice(self.staying)
                    assert put_manifest(api, self.repository, tag, self.chance.choice(MANIFESTS)).status == 201
                case 1 | 2:
                    self._make(api, f"{self.chance.choice(self.staying)}-{name}.{next(self._serial)}")
                case _ if self._there:
                    self._unmake(api, self._there.pop(self.chance.randrange(len(self._there))))
            self.changes += 1

    def _make(self, api: Api, tag: str) -> None:
        asked = time.monotonic()
        self.passing[tag] = Passing(asked, float("inf"))
        assert put_manifest(api, self.repository, tag, self.chance.choice(MANIFESTS)).status == 201
        self.passing[tag].made = time.monotonic()
        self._there.append(tag)

    def _unmake(self, api: Api, tag: str) -> None:
        self.passing[tag].unasked = time.monotonic()
        assert api.ask("DELETE", f"/v2/{self.repository}/manifests/{tag}").status == 202
        self.passing[tag].unmade = time.monotonic()


@contextmanager
def churning(server: RunningServer, repository: str, staying: list[str]) -> Iterator[list[Churn]]:
    """Run several churns at once during the block; a failure of one is raised at the end."""
    ended = threading.Event()
    churns = [Churn(repository, staying, random.Random(SEED + number)) for number in range(MOVERS)]
    problems: list[BaseException] = []

    def run(number: int) -> None:
        try:
            churns[number].run(Connection(server.host), ended, number)
        except BaseException as problem:
            problems.append(problem)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(MOVERS)]
    for each in threads:
        each.start()
    try:
        yield churns
    finally:
        ended.set()
        for each in threads:
            each.join()
    assert problems == []


def fill(api: Api, repository: str, count: int) -> list[str]:
    """Fill a repository with so many tags, many by one request; answers their names."""
    for layer, manifest in zip(LAYERS, MANIFESTS, strict=True):
        assert put_whole_blob(api, repository, layer) == 201
        assert put_manifest(api, repository, sha256(manifest), manifest).status == 201
    tags = [f"v{number:06}" for number in range(count)]
    for first in range(0, count, TAGS_A_REQUEST):
        some = urlencode([("tag", each) for each in tags[first : first + TAGS_A_REQUEST]])
        assert put_manifest(api, repository, f"{sha256(MANIFESTS[0])}?{some}", MANIFESTS[0]).status == 201
    return tags


def listed(api: Api, repository: str, size: int) -> tuple[list[str], int]:
    """Read the whole list by pages of this size, following Link; answers the tags and the number of pages."""
    path, found = f"/v2/{repository}/tags/list?n={size}", list[str]()
    for pages in itertools.count(1):
        answer = api.ask("GET", path)
        assert answer.status == 200, answer
        tags = answer.json()["tags"]
        assert len(tags) <= size
        found += tags
        link = answer.headers.get("link")
        if link is None:
            return found, pages
        assert len(tags) == size
        path = link[1 : link.index(">")]
    raise AssertionError


def check(found: list[str], began: float, ended: float, staying: list[str], churns: list[Churn]) -> None:
    """Check that each tag that was there from beginning to end was found once, and no tag that was not there."""
    assert all(one < next_one for one, next_one in itertools.pairwise(found)), "not in order, or twice"
    passing = {tag: when for churn in churns for tag, when in list(churn.passing.items())}
    others = set(found)
    assert set(staying) <= others, sorted(set(staying) - others)[:10]
    others -= set(staying)
    throughout = {tag for tag, when in passing.items() if when.made < began and when.unasked > ended}
    assert throughout <= others, sorted(throughout - others)[:10]
    ghosts = {tag for tag in others if passing[tag].asked > ended or passing[tag].unmade < began}
    assert not ghosts, sorted(ghosts)[:10]


@pytest.mark.parametrize(
    ("count", "times"),
    [(SHORT, {1000: 4, 100: 4}), pytest.param(LONG, {1000: 20, 100: 5}, marks=pytest.mark.slow)],
)
def test_each_tag_that_existed_throughout_is_listed_exactly_once(
    server: RunningServer, count: int, times: dict[int, int]
) -> None:
    print(f"seed {SEED}")
    api, repository = Connection(server.host), f"races/paging{count}"
    staying = fill(api, repository, count)
    with jittering(server, SEED), churning(server, repository, staying) as churns:
        for size, lists in times.items():
            changed = 0
            for _ in range(lists):
                before, began = sum(each.changes for each in churns), time.monotonic()
                found, pages = listed(api, repository, size)
                ended = time.monotonic()
                check(found, began, ended, staying, churns)
                changes = sum(each.changes for each in churns) - before
                print(f"n={size}: {len(found):,} tags, {pages} pages, {ended - began:.1f} s, {changes} changes")
                changed += changes
            assert changed > 0
