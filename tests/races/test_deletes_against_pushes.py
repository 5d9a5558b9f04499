"""DELETE races with PUT: a manifest is accepted with all that it names or refused, and never by a 5xx.

The long form is `make test-long PART=deletes_against_pushes`.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from domain.media_types import OCI_INDEX
from domain.streams import tag_stream
from tests.api import image, index, sha256
from tests.races.clients import Connection, put_manifest, put_whole_blob, together
from tests.races.log import assert_chained, assert_manifests_stood, events_of, events_of_stream, log_of
from tests.servers import RunningServer

ROUNDS = [150, pytest.param(5000, marks=pytest.mark.slow)]
PUSHERS = 3


@dataclass
class Race:
    """Pushers of one thing against a deleter of what it needs, who puts it back each time."""

    host: str
    rounds: int
    repository: str = field(default_factory=lambda: f"races/{secrets.token_hex(6)}")

    @property
    def layer(self) -> bytes:
        """A blob that no other repository has."""
        return f"layer of {self.repository}".encode()

    @property
    def child(self) -> bytes:
        """An image over that layer."""
        return image(self.layer, self.layer)

    def run(self, push: Callable[["Race", Connection], int], delete: Callable[["Race", Connection], int]) -> "Answers":
        """Let both sides act as often as the rounds say; counts the statuses of each side."""
        assert put_whole_blob(Connection(self.host), self.repository, self.layer) == 201
        assert put_manifest(Connection(self.host), self.repository, "child", self.child).status == 201

        def times(side: Callable[[Race, Connection], int]) -> Counter[int]:
            api = Connection(self.host)
            return Counter(side(self, api) for _ in range(self.rounds))

        *pushed, deleted = together([*[lambda: times(push)] * PUSHERS, lambda: times(delete)])
        return Answers(sum(pushed, Counter()), deleted)


@dataclass(frozen=True)
class Answers:
    """The number of answers with each status."""

    pushed: Counter[int]
    deleted: Counter[int]


def push_image(race: Race, api: Connection) -> int:
    """Push the image whose layer comes and goes."""
    return put_manifest(api, race.repository, "latest", race.child).status


def push_index(race: Race, api: Connection) -> int:
    """Push the index whose child comes and goes."""
    return put_manifest(api, race.repository, "latest", index(race.child), OCI_INDEX).status


def delete_layer(race: Race, api: Connection) -> int:
    """Delete the layer and upload it again."""
    status = api.ask("DELETE", f"/v2/{race.repository}/blobs/{sha256(race.layer)}").status
    assert put_whole_blob(api, race.repository, race.layer) == 201
    return status


def delete_child(race: Race, api: Connection) -> int:
    """Delete the child and push it again."""
    status = api.ask("DELETE", f"/v2/{race.repository}/manifests/{sha256(race.child)}").status
    assert put_manifest(api, race.repository, "child", race.child).status == 201
    return status


def delete_tag(race: Race, api: Connection) -> int:
    """Delete the tag that the pushers move."""
    return api.ask("DELETE", f"/v2/{race.repository}/manifests/latest").status


@pytest.fixture(params=ROUNDS)
def race(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Race]:
    """A race on the running server; whatever is raced, the log must be right afterwards."""
    made = Race(server.host, request.param)
    yield made
    with log_of(server.database_url) as log:
        assert_manifests_stood(log, made.repository)
        assert_chained(events_of_stream(log, tag_stream(made.repository, "latest")))


def counts(server: RunningServer, repository: str) -> Counter[str]:
    """The number of events of each type in a repository."""
    with log_of(server.database_url) as log:
        return Counter(each.type for each in events_of(log, repository))


def test_no_manifest_is_accepted_whose_layer_is_deleted_meanwhile(race: Race, server: RunningServer) -> None:
    """The manifest is answered 201 or 404, and there are as many ManifestPushed as answers 201."""
    answers = race.run(push_image, delete_layer)
    print(answers)
    assert set(answers.pushed) == {201, 404}
    assert answers.deleted == {202: race.rounds}
    found = counts(server, race.repository)
    assert found["ManifestPushed"] == answers.pushed[201] + 1
    assert (found["BlobUnlinked"], found["BlobLinked"]) == (race.rounds, race.rounds + 1)


def test_no_index_is_accepted_whose_child_is_deleted_meanwhile(race: Race, server: RunningServer) -> None:
    """The index is answered 201 or 404, and each deletion of the child takes the child's tag with it."""
    answers = race.run(push_index, delete_child)
    print(answers)
    assert set(answers.pushed) == {201, 404}
    assert answers.deleted == {202: race.rounds}
    found = counts(server, race.repository)
    assert found["ManifestPushed"] == answers.pushed[201] + race.rounds + 1
    assert (found["ManifestDeleted"], found["TagDeleted"]) == (race.rounds, race.rounds)


def test_a_push_and_the_deletion_of_its_tag_both_succeed(race: Race, server: RunningServer) -> None:
    """Every push is accepted, and there are as many TagDeleted as the deleter was told."""
    answers = race.run(push_image, delete_tag)
    print(answers)
    assert answers.pushed == {201: PUSHERS * race.rounds}
    assert set(answers.deleted) <= {202, 404}
    assert answers.deleted[202] > 0
    found = counts(server, race.repository)
    assert found["TagMoved"] == PUSHERS * race.rounds + 1
    assert found["TagDeleted"] == answers.deleted[202]


def test_no_tag_names_a_manifest_that_is_deleted_meanwhile(race: Race, server: RunningServer) -> None:
    """Pushes move a tag to a manifest that is deleted again and again, and no deletion leaves a tag behind."""
    answers = race.run(push_image, delete_child)
    print(answers)
    assert answers.pushed == {201: PUSHERS * race.rounds}
    assert answers.deleted == {202: race.rounds}
    assert counts(server, race.repository)["ManifestDeleted"] == race.rounds


def test_no_blob_is_mounted_whose_last_link_is_deleted_meanwhile(race: Race, server: RunningServer) -> None:
    """While some repository links the blob the mount is answered 201 with a link, otherwise it opens a session."""
    target = f"{race.repository}-mounts"

    def mount(race: Race, api: Connection) -> int:
        query = f"mount={sha256(race.layer)}&from={race.repository}"
        status = api.ask("POST", f"/v2/{target}/blobs/uploads/?{query}").status
        if status == 201:
            api.ask("DELETE", f"/v2/{target}/blobs/{sha256(race.layer)}")
        return status

    answers = race.run(mount, delete_layer)
    print(answers)
    assert set(answers.pushed) <= {201, 202}
    with log_of(server.database_url) as log:
        linked: dict[str, bool] = {}
        for each in sorted((*events_of(log, race.repository), *events_of(log, target)), key=lambda e: e.position):
            if each.type == "BlobLinked":
                assert each.key == race.repository or any(linked.values()), f"position {each.position}"
                linked[each.key] = True
            elif each.type == "BlobUnlinked":
                linked[each.key] = False
