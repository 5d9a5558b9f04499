"""The trail by repository, tag, actor, kind and time shows, page by page, what a filter in Python would leave."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any

import pytest
from freezegun import freeze_time

from projections.models import audit
from projections.models.audit import AuditRow, Wanted
from protocol.messages import Request
from tests.api import Registry, codes, registry_over
from tests.postgres import Server, drop_database, new_database

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 4
ACTORS = ("alice", "bob")
REPOSITORIES = ("u/app", "u/other")
PAGE = 7


@pytest.fixture(scope="module")
def trail(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry in which two people push, repeat, move and delete on several days, of which the first are folded."""
    database = new_database(postgres_server)
    ignored = ["psycopg", "psycopg_pool", "queue", "threading", "concurrent"]
    with registry_over(database, tmp_path_factory.mktemp("trail")) as made:
        with freeze_time(START, ignore=ignored) as now, pytest.MonkeyPatch.context() as patch:
            for day in range(DAYS):
                patch.setattr("tagtrail.shell.Request", partial(Request, actor=ACTORS[day % 2]))
                for name in REPOSITORIES:
                    made.push(name, f"v{day % 2}", bytes([day]))
                    made.push(name, "latest", b"same")
                assert made.delete(f"/v2/{REPOSITORIES[day % 2]}/manifests/latest").status_code == 202
                if day == DAYS // 2:
                    made.project()
                now.tick(timedelta(days=1))
        yield made
    drop_database(postgres_server, database)


def every_wanted() -> Iterator[Wanted]:
    """Each combination of conditions."""
    places = ((None, None), ("u/app", None), ("u/app", "latest"), ("u/none", None))
    whats = ((), ("tag-deleted",), ("blob-uploaded", "tag-repeated", "tag-moved"))
    days = [None, START + timedelta(days=1), START + timedelta(days=DAYS - 1)]
    for (repository, tag), actor, what, since, until in product(places, (None, *ACTORS), whats, days, days):
        if since is None or until is None or since < until:
            yield Wanted(repository, tag, actor, what, since, until)


def meets(row: AuditRow, wanted: Wanted) -> bool:
    """True if the change is wanted."""
    return (
        wanted.repository in (None, row.repository)
        and wanted.tag in (None, row.tag)
        and wanted.actor in (None, row.actor)
        and (not wanted.what or row.what in wanted.what)
        and (wanted.since is None or row.recorded_at >= wanted.since)
        and (wanted.until is None or row.recorded_at < wanted.until)
    )


def paged(registry: Registry, wanted: Wanted) -> list[AuditRow]:
    """All that is wanted, page after page."""
    found: list[AuditRow] = []
    before: int | None = None
    while True:
        page = audit.history(registry.rooms.reader, wanted, before=before, limit=PAGE)
        assert len(page.rows) <= PAGE
        found += page.rows
        if page.before is None:
            return found
        assert before is None or page.before < before
        before = page.before


def test_every_question_is_answered_as_by_a_filter(trail: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages come from rows and tail together and from rows alone, and also if one may look at few rows."""
    whole = paged(trail, Wanted())
    assert [row.position for row in whole] == sorted((row.position for row in whole), reverse=True)
    of_each = [row.position for name in REPOSITORIES for row in paged(trail, Wanted(name))]
    assert sorted(of_each, reverse=True) == [row.position for row in whole]
    assert {row.actor for row in whole} == set(ACTORS)
    assert {row.what for row in whole} >= {"tag-deleted", "tag-created", "tag-moved", "blob-uploaded"}
    wanted = list(every_wanted())
    expected = [[row for row in whole if meets(row, each)] for each in wanted]
    assert sum(map(bool, expected)) > len(expected) // 2
    assert [paged(trail, each) for each in wanted] == expected
    monkeypatch.setattr(audit, "SCANNED_MAX", PAGE - 2)
    assert [paged(trail, each) for each in wanted] == expected
    trail.project()
    monkeypatch.setattr(trail.rooms.reader, "_tail", False)
    assert [paged(trail, each) for each in wanted] == expected


def entries(registry: Registry, path: str) -> list[dict[str, Any]]:
    """All entries of a history, page after page."""
    found: list[dict[str, Any]] = []
    following: str | None = path
    while following is not None:
        answer = registry.get(following)
        assert answer.status_code == 200, answer.data
        page = answer.get_json()
        found += page["entries"]
        following = page["next"]
    return found


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", Wanted()),
        ("&actor=bob", Wanted(actor="bob")),
        ("&what=tag-deleted,tag-moved", Wanted(what=("tag-deleted", "tag-moved"))),
        ("&since=2026-03-02&until=2026-03-03", Wanted(since=START + timedelta(1), until=START + timedelta(2))),
        ("&since=2026-03-02T03:00%2B03:00&actor=alice", Wanted(actor="alice", since=START + timedelta(1))),
    ],
)
def test_pages_over_http_keep_what_was_asked_for(trail: Registry, query: str, wanted: Wanted) -> None:
    """The pages of all repositories, which each entry names, and those of one."""
    expected = paged(trail, wanted)
    assert expected
    found = entries(trail, f"/api/v1/history?n={PAGE}{query}")
    assert [(each["position"], each["repository"]) for each in found] == [
        (each.position, each.repository) for each in expected
    ]
    found = entries(trail, f"/api/v1/repositories/u/app/history?n={PAGE}{query}")
    assert [each["position"] for each in found] == [each.position for each in expected if each.repository == "u/app"]


def test_a_repository_without_such_changes_is_not_unknown(trail: Registry) -> None:
    """Its history is empty; a repository that has no change at all is unknown."""
    answer = trail.get("/api/v1/repositories/u/app/history?actor=nobody")
    assert (answer.status_code, answer.get_json()["entries"], answer.get_json()["next"]) == (200, [], None)
    answer = trail.get("/api/v1/repositories/u/none/history")
    assert (answer.status_code, codes(answer)) == (404, ["NAME_UNKNOWN"])


@pytest.mark.parametrize("place", ["history", "repositories/u/app/history"])
@pytest.mark.parametrize(
    "query", ["what=tags", "what=", "since=yesterday", "until=2026-13-01", "actor=", "actor=a%00b", "who=bob", "n=0"]
)
def test_a_wrong_condition_is_refused_by_name(trail: Registry, place: str, query: str) -> None:
    """A wrong condition never leads to the whole history."""
    answer = trail.get(f"/api/v1/{place}?{query}")
    assert (answer.status_code, codes(answer)) == (400, ["UNSUPPORTED"])
    assert list(answer.get_json()["errors"][0]["detail"]) == [query.partition("=")[0]]


def test_the_history_of_all_repositories_knows_no_tag(trail: Registry) -> None:
    """A tag belongs to a repository, so the condition is refused there."""
    assert trail.get("/api/v1/history?tag=latest").status_code == 400
