"""Power is lost after any step of any push: no event is ever without its bytes, and every client can go on.

The steps are those of the disk and of the store: create, write, flush, rename, flush the folder, append (with
the manifest's content), answer. The database keeps what it committed. The disk keeps what was flushed; of the rest it
may keep all, nothing, or mangled bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from blobstore import staging
from blobstore.disk import DiskBlobStore
from blobstore.folders import flush_folder
from command_api.uploads import requests as uploads
from command_api.uploads.seal_keys import SealKeys
from command_api.uploads.sessions import Sessions
from domain import upload as sessions
from domain.blob import BlobCommitted
from domain.digests import Digest, digest_of, parse_digest
from domain.event import decode
from domain.manifest import ManifestPushed
from domain.names import UploadId
from domain.streams import OPEN, upload_stream
from domain.upload import Upload
from eventstore.store import Store
from eventstore.types import Command, Outcome
from protocol.messages import ANONYMOUS
from tests.api import Registry, registry_over, sha256
from tests.faults.disk import EVERYTHING, FLUSHED, SURVIVALS, Disk, PowerLoss, Survival, chance
from tests.faults.pushes import WAYS, Push, Way
from tests.postgres import Database
from tests.sessions import upload_of
from tests.upkeep import keep_once

STEPS_MAX = 40
STEPS = {"create", "pwrite", "ftruncate", "flush bytes", "rename", "flush folder", "unlink", "append"}
SCHEDULES = 400
SEED = 20261125


class Machine:
    """A registry whose power is cut again and again; its database runs on another machine and keeps everything."""

    def __init__(self, registry: Registry, disk: Disk, patch: pytest.MonkeyPatch) -> None:
        self.disk = disk
        self.pushes: list[Push] = []
        self.resumed = self.gone = self.unrecorded = 0
        self._registry = registry
        self._claimed: dict[Path, Digest] = {}
        self.steps_seen: set[str] = set()
        self._position = 0
        patch.setattr(Store, "append", self._step_of_the_store(Store.append, "append"))
        # A PUT whose staged bytes are gone waits for another one that may be committing them; here only for a moment.
        patch.setattr(uploads, "_COMMIT_WAIT_S", 0.05)

    def lose_power(self, way: Way, steps: Sequence[int], survival: Survival) -> bool:
        """Make one push, and lose power in each of its tries after so many steps; the last try succeeds.

        Answers True if the last loss of power came before the end of the push.
        """
        number = len(self.pushes)
        push = Push(f"u/n{number}", Random(number).randbytes(100))
        self.pushes.append(push)
        way.before(self._registry, push)
        stopped = False
        for each in steps:
            stopped = self._stopped(way, push, each)
            self._read_claims()
            for other in SURVIVALS:
                self.require_blobs(self.disk.left(other), other.name)
            self.disk.restore(survival)
            self._registry = restarted(self._registry)
            self.require_blobs(self.disk.left(EVERYTHING), survival.name)
            self.require_kept([push])
        for location, upload in self._open(push).items():
            self._go_on(push, location, upload)
        way.act(self._registry, push)
        self.require_kept([push])
        return stopped

    def _stopped(self, way: Way, push: Push, steps: int) -> bool:
        self.disk.stop_after(steps)
        try:
            way.act(self._registry, push)
        except PowerLoss:
            return True
        finally:
            self.steps_seen.update(self.disk.steps)
            self.disk.stop_after(None)
        return False

    def _read_claims(self) -> None:
        """Check the claims of the new events: the files of blobs and the content of manifests are there."""
        store = self._registry.rooms.store
        for each in store.read_log(self._position, 10_000):
            self._position = each.position
            match decode(each.type, each.schema_version, each.data):
                case BlobCommitted() as blob:
                    digest = parse_digest(blob.digest)
                    self._claimed[self._file_of(digest, blob.generation)] = digest
                case ManifestPushed() as manifest:
                    content = store.get_content(manifest.digest)
                    assert content is not None, each
                    assert sha256(content.body) == manifest.digest

    def require_blobs(self, files: Mapping[Path, bytes], survival: str) -> None:
        """Check that every blob that an event has claimed is whole in these files."""
        for path, digest in self._claimed.items():
            found = files.get(path)
            assert found is not None, f"an event without its bytes: {digest} ({survival} survived)"
            assert digest_of(digest.algorithm, found) == digest, f"an event without its bytes: {digest} ({survival})"

    def _file_of(self, digest: Digest, generation: int) -> Path:
        data = self._registry.rooms.settings.data
        return data / "blobs" / digest.algorithm / digest.hex[:2] / f"{digest.hex}.{generation}"

    def _open(self, push: Push) -> dict[str, Upload]:
        """The open sessions of which the client was told, by location; the log may have no event of a session."""
        recorded = {each.id: each for each in open_sessions(self._registry)}
        told = {upload_of(each): each for each in push.sessions}
        assert recorded.keys() <= told.keys()
        store = self._registry.rooms.store
        fresh = [each for each in told if store.session_state(upload_stream(each)).version == 0]
        self.unrecorded += len(fresh)
        new = {each: Upload(each, push.repository, ANONYMOUS) for each in fresh}
        return {told[UploadId(each)]: upload for each, upload in (recorded | new).items()}

    def _go_on(self, push: Push, location: str, upload: Upload) -> None:
        """Check that an open session goes on where the log says, or is gone for everybody because it became a blob."""
        digest = sha256(push.layer)
        registry = self._registry
        status = registry.get(location)
        if status.status_code == 404:
            self.gone += 1
            assert registry.patch(location, data=b"more").status_code == 404
            assert registry.put(f"{location}?digest={digest}").status_code == 404
            assert registry.delete(location).status_code == 204
            assert self.disk.left(EVERYTHING).get(self._file_of(parse_digest(digest), 0)) == push.layer
            return
        self.resumed += 1
        assert (status.status_code, status.headers["Range"]) == (204, f"0-{max(upload.offset - 1, 0)}")
        rest = push.layer[upload.offset :]
        assert registry.patch(location, data=rest[:7]).status_code == 202
        push.keep_blob(registry.put(f"{location}?digest={digest}", data=rest[7:]), push.layer)

    def require_kept(self, pushes: list[Push]) -> None:
        """Check that everything acknowledged can be pulled."""
        for path, data in [each for push in pushes for each in push.kept.items()]:
            answer = self._registry.get(path)
            assert (answer.status_code, answer.data) == (200, data), path

    def finish(self) -> None:
        """Check in the end that everything acknowledged is there, and that upkeep clears all leftovers away."""
        self.disk.check()
        self._read_claims()
        self.require_blobs(self.disk.left(FLUSHED), FLUSHED.name)
        self.require_kept(self.pushes)
        data = self._registry.rooms.settings.data
        (data / "clock").write_text(str(timedelta(days=3).total_seconds()))
        keep_once(self._registry.rooms)
        assert open_sessions(self._registry) == []
        assert list((data / "uploads").iterdir()) == []

    def _step_of_the_store(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.disk.require_power()
            done = real(*arguments)
            self.disk.step(name)
            return done

        return call


def open_sessions(registry: Registry) -> list[Upload]:
    """Every session that the log calls open."""
    found = registry.rooms.store.idle_streams(OPEN, datetime.now(UTC) + timedelta(days=9), 1000)
    return [sessions.from_state(each.state) for each in found if each.state is not None]


def restarted(registry: Registry) -> Registry:
    """A new process over the same disk, which has of the old one's memory only the connections to the database."""
    rooms = registry.rooms
    blobs = DiskBlobStore(rooms.settings.data)
    keys = SealKeys(rooms.store.seal_keys)
    commands = replace(rooms.commands, blobs=blobs, sessions=Sessions(), seal_keys=keys)
    questions = replace(rooms.questions, blobs=blobs)
    return Registry(replace(rooms, commands=commands, questions=questions))


@pytest.fixture
def machine(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine with an empty disk."""
    disk = Disk(tmp_path, monkeypatch)
    with registry_over(database, tmp_path) as registry:
        yield Machine(registry, disk, monkeypatch)


def every_step(machine: Machine, way: Way) -> None:
    """Lose power after each step of one way to push."""
    for steps in count(1):
        assert steps < STEPS_MAX
        if not machine.lose_power(way, [steps], SURVIVALS[steps % len(SURVIVALS)]):
            return


def test_power_lost_after_any_step_loses_nothing(machine: Machine) -> None:
    for way in WAYS:
        every_step(machine, way)
    machine.finish()
    print(
        f"power lost {len(machine.pushes)} times, {machine.resumed} sessions went on, {machine.unrecorded} of them "
        f"without an event, {machine.gone} were gone"
    )
    assert machine.steps_seen == STEPS
    assert machine.resumed > machine.unrecorded > 0
    assert machine.gone


@pytest.mark.slow
def test_power_lost_at_random_again_and_again(machine: Machine) -> None:
    """Power is lost up to three times in one push; of what was not flushed, each piece survives or not by itself."""
    print(f"seed: {SEED}")
    random = Random(SEED)
    for _ in range(SCHEDULES):
        steps = [random.randint(1, 18) for _ in range(random.randint(1, 3))]
        machine.lose_power(random.choice(WAYS), steps, chance(random))
    machine.finish()
    print(f"power lost in {len(machine.pushes)} pushes, {machine.resumed} sessions went on, {machine.gone} were gone")


def unflushed_bytes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging.DiskUpload, "_flush", lambda _: None)


def unflushed_folder_of_blobs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging, "flush_folder", lambda folder: flush_folder(folder) if folder.name == "uploads" else None)


def unflushed_folder_of_uploads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(staging, "flush_folder", lambda folder: None if folder.name == "uploads" else flush_folder(folder))


def append_before_the_bytes(patch: pytest.MonkeyPatch) -> None:
    """Let the product append the event before it makes the blob."""
    commits_late: list[Callable[[], None]] = []
    commit, append = staging.DiskUpload.commit, Store.append

    def late(store: Store, command: Command) -> Outcome:
        outcome = append(store, command)
        while commits_late:
            commits_late.pop()()
        return outcome

    patch.setattr(staging.DiskUpload, "commit", lambda *given: commits_late.append(lambda: commit(*given)))
    patch.setattr(Store, "append", late)


@pytest.mark.parametrize(
    "broken", [unflushed_bytes, unflushed_folder_of_blobs, unflushed_folder_of_uploads, append_before_the_bytes]
)
def test_a_broken_order_is_noticed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        every_step(machine, next(each for each in WAYS if each.name == "last chunk in put"))
