"""Answers that the workers of a real server keep are the same as fresh ones, and never those of a dead server."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests

from tests.api import image, sha256
from tests.postgres import Server, drop_database, new_database
from tests.races.clients import Connection, put_manifest, put_whole_blob
from tests.servers import RunningServer, is_alive, serving, started
from tests.waiting import eventually

REPOSITORY = "kept/app"
REFUSED_MAX_S = 60.0
LAYER = b"a layer of more than one byte"
MANIFEST = image(LAYER, LAYER)


@pytest.fixture(scope="module")
def victim() -> Iterator[RunningServer]:
    """A server of these tests alone."""
    with serving() as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path for data that several runs use."""
    made = Path(tempfile.mkdtemp(prefix="tt-kept-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def push(server: RunningServer, tag: str = "latest", body: bytes = MANIFEST) -> None:
    """The image, under a tag."""
    api = Connection(server.host)
    put_whole_blob(api, REPOSITORY, LAYER)
    assert put_manifest(api, REPOSITORY, tag, body).status == 201


def digest_of_tag(server: RunningServer) -> str | None:
    """The digest that the tag names, asked on a connection of its own."""
    answer = requests.get(f"{server.url}/v2/{REPOSITORY}/manifests/latest", timeout=30)
    return answer.headers.get("Docker-Content-Digest")


def without_boundary(text: str) -> str:
    """The text of an answer with one boundary for all: each answer in several parts has its own."""
    return re.sub("(boundary=|--)[0-9a-f]{32}", r"\1BOUNDARY", text)


def epochs(server: RunningServer) -> list[int]:
    """The epochs of the places on the board."""
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        rows = connection.execute("SELECT epoch FROM log.es_writer ORDER BY place").fetchall()
    return [epoch for (epoch,) in rows]


PATHS = ["manifests/latest", f"manifests/{sha256(MANIFEST)}", f"blobs/{sha256(LAYER)}"]
HEADERS: list[dict[str, str]] = [
    {},
    {"If-None-Match": "*"},
    {"If-None-Match": f'"{sha256(MANIFEST)}"'},
    {"If-None-Match": f'W/"{sha256(LAYER)}", "other"'},
    {"Range": "bytes=2-5"},
    {"Range": "bytes=-3"},
    {"Range": "bytes=1000-"},
    {"Range": "bytes=0-1,3-4"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=str)
@pytest.mark.parametrize("path", PATHS, ids=["tag", "digest", "blob"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_kept_answer_is_as_a_fresh_one(
    victim: RunningServer, method: str, path: str, headers: dict[str, str]
) -> None:
    """Status, headers and body are the same, whichever request led to the kept answer."""
    told = {"X-Request-Id": "the-same", **headers}
    with requests.Session() as connection:  # one connection, so one worker

        def ask(how: str) -> tuple[int, dict[str, str], bytes]:
            answer = connection.request(how, f"{victim.url}/v2/{REPOSITORY}/{path}", headers=told, timeout=30)
            shown = {name: without_boundary(value) for name, value in answer.headers.items() if name.lower() != "date"}
            return answer.status_code, shown, without_boundary(answer.content.decode("latin-1")).encode("latin-1")

        push(victim)
        fresh = ask(method)
        assert ask(method) == fresh
        push(victim, "another")
        ask("HEAD" if method == "GET" else "GET")
        assert ask(method) == fresh


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_base_is_the_same_by_both_ways(victim: RunningServer, method: str) -> None:
    """`/v2/` is answered at once, and `/v2` the usual way."""
    told = {"X-Request-Id": "the-same", "Origin": "https://page.example"}
    with requests.Session() as connection:
        found = [
            connection.request(method, f"{victim.url}{path}", headers=told, timeout=30) for path in ("/v2/", "/v2")
        ]
    first, second = ({**each.headers, "date": ""} for each in found)
    assert first == second
    assert [(each.status_code, each.content) for each in found] == [(200, b"{}" if method == "GET" else b"")] * 2


def test_requests_that_wait_for_the_database_hold_up_no_others(victim: RunningServer) -> None:
    """There are more of them than threads at the start of a worker; others are answered at once or from memory."""
    push(victim)
    kept = f"{victim.url}/v2/{REPOSITORY}/blobs/{sha256(LAYER)}"
    for _ in range(8):
        assert requests.get(kept, timeout=30).status_code == 200

    def missing(number: int) -> int:
        return requests.get(f"{victim.url}/v2/{REPOSITORY}/manifests/missing{number}", timeout=60).status_code

    with psycopg.connect(victim.database_url) as holder, ThreadPoolExecutor(24) as askers:
        holder.execute("LOCK TABLE readmodel.checkpoint IN ACCESS EXCLUSIVE MODE")
        asked = [askers.submit(missing, number) for number in range(24)]
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'readmodel.checkpoint'::regclass"
        try:
            eventually(lambda: (holder.execute(waiting).fetchone() or (0,))[0] >= 4)
            for path in (f"{victim.url}/v2/", kept) * 8:
                assert requests.get(path, timeout=30).status_code == 200
            assert not all(each.done() for each in asked)
        finally:
            holder.rollback()
        assert {each.result() for each in asked} <= {404, 503}


def test_a_blob_whose_file_was_taken_away_is_not_served(victim: RunningServer) -> None:
    """Each worker looks for the file again soon, though the answer was kept. When it is back, it is served at once."""
    path = f"{victim.url}/v2/{REPOSITORY}/blobs/{sha256(LAYER)}"
    push(victim)
    for _ in range(8):
        assert requests.get(path, timeout=30).content == LAYER
    digest = sha256(LAYER).removeprefix("sha256:")
    (file,) = (victim.data / "blobs" / "sha256" / digest[:2]).glob(f"{digest}.*")
    aside = file.rename(victim.data / "aside")

    def gone() -> bool:
        asked = [requests.request(method, path, timeout=30).status_code for method in ("GET", "HEAD") * 8]
        return set(asked) == {404}

    eventually(gone)
    aside.rename(file)
    for _ in range(8):
        assert requests.get(path, timeout=30).content == LAYER


def test_a_killed_appender_leaves_no_cells_open(victim: RunningServer) -> None:
    """Its successor claims the place at once, before there is anything to append. Nobody else has one."""
    push(victim)
    (before,) = epochs(victim)
    os.kill(victim.children()["appender"], signal.SIGKILL)
    eventually(lambda: epochs(victim) == [before + 1])
    push(victim)
    assert digest_of_tag(victim) == sha256(MANIFEST)


def test_a_killed_worker_leaves_no_cells_open() -> None:
    """The same, where workers append by themselves."""
    with serving({"TAGTRAIL_APPENDER": "false"}) as server:
        push(server)
        # The places of two workers and of the keeper.
        eventually(lambda: len(epochs(server)) == 3)
        before = sum(epochs(server))
        os.kill(server.workers()[0], signal.SIGKILL)
        eventually(lambda: sum(epochs(server)) == before + 1)
        push(server)
        assert digest_of_tag(server) == sha256(MANIFEST)


def test_a_worker_that_was_stopped_across_a_restart_is_gone_before_the_next_server_serves(folder: Path) -> None:
    """If it lived on, it would wake up with answers that it had kept before."""
    with started(folder / "data") as first:
        first.wait_ready()
        push(first)
        stopped = first.workers()
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        first.process.kill()
        first.process.wait()
    with started(folder / "data") as second:
        second.wait_ready()
        assert not any(is_alive(each) for each in stopped)
        push(second, body=image(LAYER, LAYER, LAYER))
        assert digest_of_tag(second) == sha256(image(LAYER, LAYER, LAYER))


def test_two_servers_cannot_both_be_the_single_node(postgres_server: Server, folder: Path) -> None:
    """The second one does not start, also without --single-node, and the first serves on."""
    database = new_database(postgres_server)
    options = {"TAGTRAIL_DATABASE": database.app_url}
    try:
        with serving({**options, "TAGTRAIL_SINGLE_NODE": "true"}) as first:
            for single in ("true", "false"):
                with started(folder / f"second-{single}", {**options, "TAGTRAIL_SINGLE_NODE": single}) as second:
                    assert second.process.wait(REFUSED_MAX_S) == 1
                assert "another server has this log to itself" in second.log.read_text()
            push(first)
            assert digest_of_tag(first) == sha256(MANIFEST)
        with serving(options) as third:
            push(third, body=image(LAYER, LAYER, LAYER))
            assert digest_of_tag(third) == sha256(image(LAYER, LAYER, LAYER))
    finally:
        drop_database(postgres_server, database)
