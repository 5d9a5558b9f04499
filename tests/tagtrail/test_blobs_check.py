"""`tagtrail blobs check` finds every damaged file and moves it away, touches no whole one, and a push heals."""

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from domain.digests import digest_of
from domain.media_types import OCI_MANIFEST
from tests.api import LAYER_TYPE, image, sha256
from tests.servers import RunningServer, serving
from tests.tagtrail.test_cli import COMMAND, Ran, environment, run
from tests.waiting import eventually

pytestmark = pytest.mark.xdist_group("blobs_check")
DAMAGES_FOUND = 3
DAMAGE_FOUND_MAX_S = 120.0


@pytest.fixture(scope="module")
def own_server() -> Iterator[RunningServer]:
    """A server whose blobs the tests damage."""
    with serving() as running:
        yield running


def upload(server: RunningServer, repository: str, data: bytes, algorithm: str = "sha256") -> str:
    digest = str(digest_of(algorithm, data))
    answer = requests.post(f"{server.url}/v2/{repository}/blobs/uploads/?digest={digest}", data, timeout=30)
    assert answer.status_code == 201, answer.text
    return digest


def put_manifest(server: RunningServer, repository: str, body: bytes) -> requests.Response:
    url = f"{server.url}/v2/{repository}/manifests/1"
    return requests.put(url, body, headers={"Content-Type": OCI_MANIFEST}, timeout=30)


def file_of(server: RunningServer, digest: str) -> Path:
    algorithm, _, name = digest.partition(":")
    return server.data / "blobs" / algorithm / name[:2] / f"{name}.0"


def head(server: RunningServer, repository: str, digest: str) -> int:
    return requests.head(f"{server.url}/v2/{repository}/blobs/{digest}", timeout=30).status_code


def check(server: RunningServer, *arguments: str) -> Ran:
    return run("blobs", "check", "--data", server.data, *arguments)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "wrong bytes": flip,
    "wrong size": lambda path: os.truncate(path, 3),
    "missing": lambda path: path.unlink(),
}


def manifest_over(*layers: tuple[str, bytes]) -> bytes:
    """An image whose layers have these digests."""
    listed = [{"mediaType": LAYER_TYPE, "digest": digest, "size": len(data)} for digest, data in layers]
    return json.dumps({**json.loads(image(b"{}")), "layers": listed}).encode()


def test_damage_is_found_put_away_and_healed_by_a_push(own_server: RunningServer) -> None:
    """Each kind of damage is done to a sha256 and to a sha512 blob of one image."""
    repository = f"check/{uuid.uuid4().hex[:12]}"
    kinds = {(damage, each): os.urandom(100_000) for damage in DAMAGES for each in ("sha256", "sha512")}
    digests = {kind: upload(own_server, repository, data, kind[1]) for kind, data in kinds.items()}
    upload(own_server, repository, b"{}")
    body = manifest_over(*((digests[kind], data) for kind, data in kinds.items()))
    assert put_manifest(own_server, repository, body).status_code == 201
    for (damage, _), digest in (damaged := {kind: digests[kind] for kind in kinds}).items():
        DAMAGES[damage](file_of(own_server, digest))
    ran = check(own_server, "--repo", repository, "-o", "json")
    *found, total = ran.lines()
    assert ran.status == 1
    assert {each["digest"]: each["damage"] for each in found} == {digest: kind for (kind, _), digest in damaged.items()}
    assert total == {"blobs": 7, "bytes": 600_002, "damaged": 6}
    for each in found:
        assert each["repositories"] == [repository]
        assert each["manifests"] == [[repository, sha256(body), "layer"]]
        assert f"blob {each['digest']} is damaged ({each['damage']})" in ran.err
        if each["damage"] != "missing":
            assert Path(each["moved_to"]).parent == own_server.data / "quarantine"
            assert Path(each["moved_to"]).is_file()
        assert head(own_server, repository, each["digest"]) == 404
        assert f"the file of blob {each['digest']} is missing" in own_server.log.read_text()
    refused = put_manifest(own_server, repository, body)
    assert refused.status_code == 404
    assert {each["code"] for each in refused.json()["errors"]} == {"MANIFEST_BLOB_UNKNOWN"}
    for kind, data in kinds.items():
        assert upload(own_server, repository, data, kind[1]) == digests[kind]
        assert requests.get(f"{own_server.url}/v2/{repository}/blobs/{digests[kind]}", timeout=30).content == data
    assert put_manifest(own_server, repository, body).status_code == 201
    assert check(own_server).status == 0


def test_the_table_says_who_is_concerned(own_server: RunningServer) -> None:
    repository = f"check/{uuid.uuid4().hex[:12]}"
    data = os.urandom(1000)
    digest = upload(own_server, repository, data)
    os.truncate(file_of(own_server, digest), 10)
    ran = check(own_server)
    assert ran.status == 1
    assert f"{digest}: wrong size (10 of 1000 bytes)" in ran.out
    assert f"in 1 repositories: {repository}" in ran.out
    upload(own_server, repository, data)


def test_when_a_check_has_ended_no_worker_serves_what_it_found_from_memory(own_server: RunningServer) -> None:
    """Each worker has the right bytes in memory and has seen the file just before it was moved away."""
    repository = f"check/{uuid.uuid4().hex[:12]}"
    data = os.urandom(1000)
    digest = upload(own_server, repository, data)
    url = f"{own_server.url}/v2/{repository}/blobs/{digest}"
    for _ in range(16):
        assert requests.get(url, timeout=30).content == data
    flip(file_of(own_server, digest))
    stop = threading.Event()

    def asking() -> None:
        while not stop.is_set():
            requests.get(url, timeout=30)

    thread = threading.Thread(target=asking)
    thread.start()
    try:
        ran = check(own_server, "--repo", repository)
        assert {head(own_server, repository, digest) for _ in range(16)} == {404}
    finally:
        stop.set()
        thread.join()
    assert (ran.status, f"{digest}: wrong bytes" in ran.out) == (1, True)
    upload(own_server, repository, data)
    assert requests.get(url, timeout=30).content == data


def test_wrong_usage_is_said(own_server: RunningServer, tmp_path: Path) -> None:
    unknown = check(own_server, "--repo", "no/such")
    assert (unknown.status, unknown.err) == (1, "Error: there is no repository no/such\n")
    assert check(own_server, "--repo", "No/Such").status == 2
    assert check(own_server, "--rate", "fast").status == 2
    elsewhere = run("blobs", "check", "--data", tmp_path, "--database", own_server.database_url)
    assert (elsewhere.status, "holds no blobs" in elsewhere.err) == (1, True)


def test_the_rate_is_kept_and_ctrl_c_ends_it(own_server: RunningServer) -> None:
    repository = f"check/{uuid.uuid4().hex[:12]}"
    upload(own_server, repository, os.urandom(1_000_000))
    began = time.monotonic()
    assert check(own_server, "--repo", repository, "--rate", "1MiB").status == 0
    assert time.monotonic() - began > 0.9
    command = [*COMMAND, "blobs", "check", "--data", str(own_server.data), "--repo", repository, "--rate", "1KiB"]
    blobs = str(own_server.data / "blobs")
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def reading() -> bool:
            with suppress(FileNotFoundError):
                return any(os.readlink(each).startswith(blobs) for each in Path(f"/proc/{process.pid}/fd").iterdir())
            return False

        try:
            eventually(reading)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_a_check_never_takes_a_good_file_while_pushes_heal(own_server: RunningServer) -> None:
    """Checks run all the time while a blob is damaged and pushed again and again: after each push it is whole."""
    repository = f"check/{uuid.uuid4().hex[:12]}"
    data = os.urandom(200_000)
    digest = upload(own_server, repository, data)
    stop = threading.Event()
    statuses: list[int] = []

    def checking() -> None:
        while not stop.is_set():
            statuses.append(check(own_server, "--repo", repository).status)

    # Several checks, because each waits at its end until no server relies on a file that it moved away.
    threads = [threading.Thread(target=checking) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + DAMAGE_FOUND_MAX_S
    try:
        while statuses.count(1) < DAMAGES_FOUND and time.monotonic() < deadline:
            with suppress(FileNotFoundError):
                flip(file_of(own_server, digest))
            upload(own_server, repository, data)
            answer = requests.get(f"{own_server.url}/v2/{repository}/blobs/{digest}", timeout=30)
            assert (answer.status_code, answer.content == data) == (200, True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert statuses.count(1) >= DAMAGES_FOUND, "no check met the damage"
    assert set(statuses) <= {0, 1}
    assert check(own_server, "--repo", repository).status == 0
