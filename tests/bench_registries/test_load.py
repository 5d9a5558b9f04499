"""The load program against a real registry: every kind of work without an error, and wrong bytes are seen."""

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.registries import history, loading, peers
from bench.registries.rows import ROWS, STORM, Start
from scripts.tools import find_program
from tests.clients.programs import missing
from tests.servers import RunningServer
from tests.waiting import eventually

SECONDS = 0.1
SMALL = ("-images", "4", "-repositories", "2", "-bytes", f"{300 << 10}", "-connections", "4")


@pytest.fixture(scope="module")
def load() -> Path:
    """The load program, built if this version of its source was not built before."""
    if find_program("go") is None:
        missing("go is not on PATH")
    return loading.build()


@pytest.fixture(scope="module")
def populated(load: Path, server: RunningServer) -> RunningServer:
    """A server that holds what the GETs ask for."""
    assert loading.run(load, server.host, ("populate", *SMALL), SECONDS).errors == 0
    return server


def test_every_row_runs_without_an_error(load: Path, populated: RunningServer) -> None:
    """Each mode and flag that the bench uses."""
    for row in ROWS:
        salt = f"test-{row.key}-{time.time_ns()}"
        found = loading.run(load, populated.host, (*row.load, *SMALL, "-salt", salt), SECONDS)
        assert (found.errors, found.first_error) == (0, ""), row
        assert found.done > 0, row
        assert found.rate > 0, row
        assert found.p50_ms <= found.p99_ms <= found.max_ms, row
        assert (found.other_rate > 0) == (row.key == "get-while-push"), row
        if row.before:
            before = loading.run(load, populated.host, (*row.before, *SMALL), SECONDS)
            assert (before.done, before.errors, found.done, row.start) == (2, 0, 2, Start.ANEW), row
        if row.key == STORM:
            assert history.gap(populated.host, salt, found.done) == "", row
            assert history.gap(populated.host, salt, found.done + 1).endswith(f"has {found.done} entries"), row


def test_wrong_answers_are_errors(load: Path, populated: RunningServer, tmp_path: Path) -> None:
    """Such answers are a damaged body, a body that is too short, a wrong status, and a blob that is there already."""
    blobs = populated.data / "blobs" / "sha256"
    for path in blobs.glob("*/*.0"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes()[::-1])
    address = peers.free_address()
    files = subprocess.Popen([load, "serve-files", "-address", address, "-folder", tmp_path])
    try:
        eventually(lambda: _answers(address))
        damaged = loading.run(load, address, ("get", "-what", "blob", *SMALL), SECONDS)
        assert damaged.first_error == "a body with another digest"
        for path in tmp_path.glob("*/*.0"):
            path.write_bytes(b"short")
        short = loading.run(load, address, ("get", "-what", "blob", *SMALL), SECONDS)
        assert (short.done, short.first_error) == (0, "5 bytes instead of 4096")
        absent = loading.run(load, address, ("get", "-what", "manifest-tag", *SMALL), SECONDS)
        assert (absent.done, absent.first_error) == (0, "status 404")
    finally:
        files.kill()
        files.wait()
    again = loading.run(load, populated.host, ("populate", *SMALL), SECONDS)
    assert again.first_error.endswith("status 200 instead of 404: ")


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{address}/").close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except OSError:
        return False
    return True
