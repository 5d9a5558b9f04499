"""Upgrades without a pause: the release before serves beside the present one, and the present one beside the next.

Earlier releases are real programs, unpacked from the repository and run by their own commands. The next release is the
present program with one more revision, since there is no later program.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from eventstore import schema, verify
from eventstore.features import READERS, Feature
from eventstore.store import Store
from eventstore.window import REVISION
from projections.builds.verify import verify as verify_models
from tests.api import registry_over
from tests.folded import wait_folded
from tests.postgres import Database, Server, drop_database, empty_database
from tests.upgrade.releases import Program, Release, earlier_releases, next_release, present, unpack
from tests.upgrade.rolling import Server as Api
from tests.upgrade.rolling import Site, Storm, status
from tests.upgrade.traffic import Client, digest_of
from tests.waiting import eventually

NEW_EVENT = Feature("TagMoved.2", READERS)
EARLIER = earlier_releases()


@pytest.fixture
def empty(postgres_server: Server) -> Iterator[Database]:
    """A database that no migration has seen."""
    made = empty_database(postgres_server)
    yield made
    drop_database(postgres_server, made)


@pytest.fixture
def site(empty: Database) -> Iterator[Site]:
    """The processes of all releases over the database."""
    made = Site(empty)
    yield made
    made.close()


def take_turns(one: Api, other: Api) -> None:
    """An upload that was opened through either of two servers goes on through both."""
    for opener, follower in ((one, other), (other, one)):
        host, another = f"http://{opener.host}", f"http://{follower.host}"
        with closing(Client(host)) as first, closing(Client(another)) as second:
            location = first.ask("POST", "/v2/turns/app/blobs/uploads/", 202).headers["Location"]
            assert second.ask("GET", location, 204).headers["Range"] == "0-0"
            second.ask("PATCH", location, 202, data=b"first ")
            first.ask("PATCH", location, 202, data=b"second ")
            second.ask("PUT", f"{location}?digest={digest_of(b'first second third')}", 201, data=b"third")
            location = first.ask("POST", "/v2/turns/app/blobs/uploads/", 202).headers["Location"]
            second.ask("DELETE", location, 204)
            first.ask("PATCH", location, 404, data=b"more")


def roll(site: Site, old: Program, new: Program, newest: str) -> str:
    """An upgrade and half a downgrade under load: migrate, add new servers, stop old ones, start old ones again.

    Answers where an upload stands that the old program opened and took "begun" of.
    """
    site.migrate(old)
    first = site.api(old)
    with Storm().blowing(first) as storm:
        storm.wait()
        assert site.migrate(new) == f"The schema is at {newest}.\n"
        storm.wait()
        assert status(first.host, "/readyz")[0] == 200
        second = site.api(new)
        take_turns(first, second)
        storm.through(first, second)
        storm.wait()
        storm.through(second)
        first.stop()
        storm.wait()
        third = site.api(old)
        take_turns(second, third)
        with closing(Client(f"http://{third.host}")) as client:
            location = client.ask("POST", "/v2/turns/left/blobs/uploads/", 202).headers["Location"]
            client.ask("PATCH", location, 202, data=b"begun ")
        storm.through(second, third)
        storm.wait()
        assert status(second.host, "/readyz")[0] == 200
    return location


def assert_verified(database: Database) -> None:
    """Check the log, the rows beside it, and the read models once they are level with it."""
    assert verify.verify(database.app_url) == []
    wait_folded(database.app_url)
    assert [each.name for each in verify_models(database.app_url) if not each.equal] == []


@pytest.mark.parametrize(
    "earlier",
    [EARLIER[0], *(pytest.param(each, marks=pytest.mark.slow) for each in EARLIER[1:])],
    ids=lambda each: each.commit[:7],
)
def test_no_request_fails_while_an_earlier_release_is_replaced(
    site: Site, empty: Database, earlier: Release, tmp_path: Path
) -> None:
    """The upgrade can be undone until a new event type stands in the log; then the old program says so and stops.

    `make test-long PART=replaced` also takes the states that have landed since the release before.
    """
    previous = unpack(earlier, tmp_path)
    left = roll(site, previous, present(), REVISION)
    assert_verified(empty)
    with closing(Store(empty.app_url)) as store:
        assert any(each.startswith("api ") for each in store.features.lacking(NEW_EVENT))
        site.stop()
        with psycopg.connect(empty.admin_url) as connection:
            # Workers do not say that they end, but count as gone after a minute.
            connection.execute("UPDATE feed.process SET seen_at = seen_at - interval '1 minute'")
        eventually(lambda: not store.features.lacking(NEW_EVENT), what="no live process lacks it")
    with registry_over(empty, site.folder / "data") as registry:
        # Sessions now get ids that prove themselves; one that the old program opened goes on to its end.
        upload = registry.post("/v2/turns/left/blobs/uploads/").headers["Location"]
        assert upload.startswith("/v2/turns/left/blobs/uploads/1-")
        assert registry.patch(upload, data=b"x").status_code == 202
        assert registry.put(f"{left}?digest={digest_of(b'begun ended')}", data=b"ended").status_code == 201
    told = site.refused(previous)
    if earlier.heeds_features:
        assert "the log uses TagMoved.2, " in told
        assert "which this api does not know: install a newer version" in told
    else:
        assert "stands at schema 0006, this program needs schema 0005" in told
    # The present program does not know that event type either.
    assert "uses TagMoved.2, which this api does not know: install a newer version" in site.refused(present())
    for command in (("verify",), ("rebuild", "all"), ("swap-back", "all"), ("replay-parked",)):
        done = present().run("projections", *command, TAGTRAIL_DATABASE=empty.app_url)
        assert done.returncode == 1
        assert "uses TagMoved.2, which this projector does not know" in done.stderr


def test_no_request_fails_while_the_present_release_is_replaced(site: Site, empty: Database, tmp_path: Path) -> None:
    """It serves a schema that it does not know, because that schema says that it may."""
    roll(site, present(), next_release(tmp_path, serves_from="0005"), "9999")
    assert_verified(empty)
    assert site.migrate(present()) == "The schema is at 9999.\n"
    found = schema.installed(empty.app_url)
    assert found is not None
    assert found.revision == "9999"


def test_a_process_too_old_for_the_schema_says_which_it_needs(site: Site, tmp_path: Path) -> None:
    """Running processes stop serving and say so at /readyz and in each answer; new ones do not start."""
    needs = (
        f"the database stands at schema 9999, which needs a program that knows schema 9999; this one knows {REVISION}"
    )
    site.migrate(present())
    server = site.api(present())
    site.migrate(next_release(tmp_path, serves_from="9999"))
    code, body = status(server.host, "/readyz")
    assert code == 503
    assert needs in json.loads(body)["problems"][0]
    eventually(lambda: status(server.host, "/v2/")[0] == 503)
    assert needs in json.loads(status(server.host, "/v2/")[1])["errors"][0]["message"]
    assert status(server.host, "/healthz")[0] == 200
    assert needs in site.refused(present())
