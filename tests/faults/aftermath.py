"""Checks after the faults that everything acknowledged is there and whole, and that nothing is left over."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from eventstore import verify
from eventstore.types import Recorded
from tagtrail.server.lock import is_held
from tests.api import sha256
from tests.faults import pushers
from tests.faults.ledger import Ledger
from tests.faults.pushers import Line, Pusher
from tests.faults.site import Site, processes_of
from tests.feed.running import assert_right
from tests.folded import wait_folded
from tests.races.log import assert_chained, assert_manifests_stood, events_of, log_of
from tests.tagtrail.test_cli import run

READERS = 4
LEVEL_TIMEOUT_S = 120.0
T = TypeVar("T")


def assert_kept(site: Site, ledger: Ledger) -> None:
    """Check over HTTP that manifests, blobs and tags are as acknowledged, and uploads as they were left."""
    assert ledger.wrong == [], ledger.wrong[:9]
    for look, places in (
        (pushers.wrong_manifest, ledger.manifests),
        (pushers.wrong_blob, ledger.blobs),
        (pushers.wrong_tag, ledger.tags),
    ):
        wrong = _wrong(site, ledger, look, places)
        assert wrong == [], wrong[:9]
    line = Line(site.host, ledger)
    for session in ledger.open_sessions():
        if pushers.finish(line, ledger, session, 1):
            ledger.count("left uploads finished")
            place = session.repository, sha256(session.data)
            ledger.blobs[place] = len(session.data)
            assert pushers.wrong_blob(line, ledger, place) is None
    assert ledger.wrong == [], ledger.wrong[:9]


def _wrong(
    site: Site, ledger: Ledger, look: Callable[[Line, Ledger, T], str | None], places: Collection[T]
) -> list[str]:
    lines = threading.local()

    def ask(place: T) -> str | None:
        if not hasattr(lines, "line"):
            lines.line = Line(site.host, ledger)
        return look(lines.line, ledger, place)

    with ThreadPoolExecutor(READERS) as pool:
        return [wrong for wrong in pool.map(ask, list(places)) if wrong]


def assert_consistent(site: Site) -> None:
    """Check that log, rows beside it and read models agree, that the log has no gap, and that all blobs are whole."""
    url = site.server.database_url
    wait_folded(url, timeout_s=LEVEL_TIMEOUT_S)
    faults = verify.verify(url)
    assert faults == [], faults[:9]
    assert_right(url)
    with log_of(url) as store:
        for repository in pushers.REPOSITORIES:
            assert_manifests_stood(store, repository)
            tags: dict[str, list[Recorded]] = defaultdict(list)
            for each in events_of(store, repository, "TagMoved"):
                tags[each.stream].append(each)
            for moves in tags.values():
                assert_chained(moves)
    checked = run("blobs", "check", "--data", site.data)
    assert checked.status == 0, checked.out


def assert_nothing_left(site: Site, ledger: Ledger) -> None:
    """Check that the server ends when told to and leaves no process and no lock, and that the next one takes a push."""
    assert site.server.stop() == 0
    assert processes_of(site.data) == [], processes_of(site.data)
    assert not is_held(site.data)
    site.start_again()
    last = Pusher("last", 0, site.host, ledger, threading.Event(), 0.0)
    last.push()
    last.read_back()
    assert ledger.wrong == [], ledger.wrong[:9]
    assert site.server.stop() == 0
    assert processes_of(site.data) == [], processes_of(site.data)
