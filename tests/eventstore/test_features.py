"""Features: none is used before every live process of the kinds concerned has it, and who lacks one does not serve."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest

from domain.facts import ANNOTATIONS_BYTES_MAX
from domain.features import HANDLED, SMALL_FACTS
from domain.media_types import OCI_MANIFEST
from domain.tag import TagMoved
from eventstore import features, schema
from eventstore.features import READERS, Feature, Features
from eventstore.feed import members
from eventstore.feed.members import Member, Membership
from eventstore.store import Store
from eventstore.types import FeatureNotInUse, SchemaOutdated
from eventstore.window import REVISION
from tests.api import Registry, sha256
from tests.postgres import Database
from tests.waiting import eventually

NEW = Feature("collection", frozenset({"keeper", "api"}))


@contextmanager
def living(
    database: Database, member: Member, *, lease: str | None = None, beat_s: float = 0.05
) -> Iterator[Membership]:
    """A process of this kind that beats, and wants a lease."""
    wants = None if lease is None else lambda _, __, ___: [lease]
    made = Membership(database.app_url, member, wants, beat_s=beat_s).start()
    try:
        made.wait_tried(60)
        yield made
    finally:
        made.close()


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store of one process."""
    made = Store(database.app_url)
    yield made
    made.close()


def alone(database: Database, statement: str) -> list[tuple[object, ...]]:
    """The answer of a statement to a superuser."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "ASK_AGAIN_S", 0.0)


def test_a_feature_waits_for_every_live_process_that_it_concerns(database: Database, store: Store) -> None:
    """One that lacks it and is not concerned does not matter; once in use it stays so."""
    newer = Member("api", features=HANDLED["api"] | {"collection"})
    with living(database, Member("relay")), living(database, newer) as api:
        assert api.refusal is None
        with living(database, Member("keeper")) as old:
            assert store.features.lacking(NEW) == [f"keeper {old.id}"]
            with pytest.raises(FeatureNotInUse, match=f"collection is used once .*keeper {old.id}"):
                store.features.need(NEW)
        assert store.features.lacking(NEW) == []
    with closing(Store(database.app_url)) as another:
        assert another.features.lacking(NEW) == []


def test_a_heart_outlives_what_nobody_thought_of(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A fault that does not come from the database is logged with its trace, and the next beat is tried."""
    faults = [ValueError("nobody thought of this"), MemoryError()]

    def wants(alive: object, me: str, partitions: int) -> list[str]:
        if faults:
            raise faults.pop()
        return ["one/0"]

    process = Membership(database.app_url, Member("projector", features=HANDLED["projector"]), wants, beat_s=0.05)
    process.start()
    try:
        eventually(lambda: process.held == {"one/0"})
        assert process.refusal is None
    finally:
        process.close()
    assert [each.exc_text.splitlines()[-1] for each in caplog.records if each.exc_text] == [
        "MemoryError",
        "ValueError: nobody thought of this",
    ]


def test_who_comes_later_and_lacks_a_used_feature_must_not_serve(database: Database, store: Store) -> None:
    """It is told at start and by its beats, holds nothing, and does not count as living; other kinds go on."""
    store.features.need(NEW)
    told = "the log uses collection, which this keeper does not know: install a newer version of tagtrail"
    with pytest.raises(SchemaOutdated, match=told):
        schema.check(database.app_url, {"keeper": frozenset()})
    assert schema.check(database.app_url, {"relay": frozenset()}) == []
    with living(database, Member("keeper"), lease="lease") as old:
        assert old.refusal == told
        assert old.held == frozenset()
        with living(database, Member("relay"), lease="lease") as other:
            assert other.refusal is None
            eventually(lambda: other.held == {"lease"})
        assert alone(database, "SELECT kind FROM feed.process") == []


def test_a_process_whose_beats_fail_for_long_stops_before_others_forget_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves again as soon as it is registered anew."""
    assert members.REGISTERED_S < features.LIVES_FOR_S
    monkeypatch.setattr(members, "REGISTERED_S", 2.0)
    with living(database, Member("relay")) as member:
        assert member.refusal is None
        alone(database, "ALTER TABLE log.es_feature RENAME TO away")
        assert eventually(lambda: member.refusal) == "this process could not renew its registration with the database"
        alone(database, "ALTER TABLE log.away RENAME TO es_feature")
        eventually(lambda: member.refusal is None)


def test_a_process_that_said_nothing_for_long_does_not_count(database: Database, store: Store) -> None:
    """It was killed; it stopped serving by its own clock long before."""
    with living(database, Member("keeper"), beat_s=60) as killed:
        assert store.features.lacking(NEW) == [f"keeper {killed.id}"]
        alone(database, "UPDATE feed.process SET seen_at = seen_at - interval '59 seconds'")
        assert store.features.lacking(NEW) == [f"keeper {killed.id}"]
        alone(database, "UPDATE feed.process SET seen_at = seen_at - interval '2 seconds'")
        assert store.features.lacking(NEW) == []


def test_an_event_type_is_appended_once_all_readers_know_it(
    registry: Registry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before that the answer is 503 with the reason, and nothing is appended; old types are appended as before."""
    registry.push("u/app", "v1", b"layer")
    manifest = registry.get("/v2/u/app/manifests/v1")
    monkeypatch.setattr(TagMoved, "SCHEMA_VERSION", 2)
    for kind in sorted(READERS):
        with living(database, Member(kind, features=HANDLED[kind])):
            head = registry.head_position()
            answer = registry.manifest("u/app", "v2", manifest.data)
            assert answer.status_code == 503
            assert b"TagMoved.2 is used once all processes of this registry know it" in answer.data
            assert answer.headers["Retry-After"]
            assert registry.head_position() == head
            registry.blob("u/app", kind.encode())
    newer = HANDLED["api"] | {"TagMoved.2"}
    with living(database, Member("api", features=newer)), living(database, Member("relay")):
        assert registry.manifest("u/app", "v2", manifest.data).status_code == 201
    with pytest.raises(SchemaOutdated, match=r"the log uses TagMoved.2, which this api does not know"):
        schema.check(database.app_url, HANDLED)


def test_older_processes_are_given_facts_with_all_annotations(registry: Registry, database: Database) -> None:
    """They list what facts say; those that know better are given facts without the large ones, once all do."""
    registry.push("u/app", "v1", b"layer")
    subject = registry.get("/v2/u/app/manifests/v1")
    kept = "SELECT octet_length((facts->'annotations')::text) FROM log.es_content ORDER BY stored_at DESC LIMIT 1"
    large = {"note": "x" * (ANNOTATIONS_BYTES_MAX + 1)}

    def push(name: str) -> None:
        described = {"mediaType": OCI_MANIFEST, "digest": sha256(subject.data), "size": len(subject.data)}
        manifest = json.loads(subject.data) | {"subject": described, "annotations": large | {"name": name}}
        assert registry.manifest("u/app", name, json.dumps(manifest).encode()).status_code == 201

    with living(database, Member("projector", features=HANDLED["projector"] - {SMALL_FACTS})) as old:
        push("old")
        assert alone(database, kept) > [(ANNOTATIONS_BYTES_MAX,)]
        assert old.refusal is None
    push("new")
    assert alone(database, kept) < [(100,)]
    listed = json.loads(registry.get(f"/v2/u/app/referrers/{sha256(subject.data)}").data)["manifests"]
    assert sorted(each["annotations"]["name"] for each in listed) == ["new", "old"]
    assert {each["annotations"]["note"] for each in listed} == {large["note"]}
    with pytest.raises(SchemaOutdated, match="the log uses small-facts, which this api does not know"):
        schema.check(database.app_url, {"api": HANDLED["api"] - {SMALL_FACTS}})


def test_programs_from_before_the_window_live_too(database: Database, store: Store) -> None:
    """They beat without features, and keep the first one from being used; then they are turned away at their start."""
    alone(
        database,
        "INSERT INTO feed.process (id, kind, host, pid, shapes, event_types, started_at, seen_at)"
        " VALUES ('old', 'api', 'h', 1, '{}', '{TagMoved}', now(), now())",
    )
    assert store.features.lacking(NEW) == ["api old"]
    alone(database, "DELETE FROM feed.process")
    assert store.features.lacking(NEW) == []
    # They demand exactly 0005 here.
    assert alone(database, "SELECT version_num FROM log.alembic_version") == [("0006",)]
    assert alone(database, "SELECT version_num, serves_from FROM log.es_schema") == [(REVISION, "0006")]


def test_a_feature_that_raises_the_least_schema_waits_for_older_processes_of_every_kind(
    database: Database, store: Store
) -> None:
    """Once used, it turns away processes of an older schema that come later."""
    accounts = Feature("accounts", frozenset({"api"}), serves_from="9000")
    with living(database, Member("relay", knows="0999")) as old:
        assert store.features.lacking(accounts) == [f"relay {old.id}"]
    assert store.features.lacking(accounts) == []
    with living(database, Member("relay", knows="0999")) as old:
        assert "needs a program that knows schema 9000; this one knows 0999" in (old.refusal or "")
    with pytest.raises(SchemaOutdated, match="needs a program that knows schema 9000"):
        schema.check(database.app_url)


def test_starting_and_using_at_once_never_leaves_both(database: Database) -> None:
    """Many processes start while a feature is put to use; each is either asked or told."""
    for number in range(15):
        feature = Feature(f"f{number}", frozenset({"api"}))
        store = Store(database.app_url)
        began = threading.Barrier(3)
        found: list[Membership] = []

        def start(began: threading.Barrier = began, found: list[Membership] = found) -> None:
            made = Membership(database.app_url, Member("api", features=HANDLED["api"]))
            began.wait()
            made.start().wait_tried(60)
            found.append(made)

        threads = [threading.Thread(target=start) for _ in range(2)]
        for each in threads:
            each.start()
        began.wait()
        lacking = store.features.lacking(feature)
        for each in threads:
            each.join()
        refused = [member for member in found if member.refusal is not None]
        try:
            assert bool(lacking) is not bool(refused)
            assert len(refused) in (0, 2)
        finally:
            for member in found:
                member.close()
            store.close()
            alone(database, "DELETE FROM log.es_feature WHERE name LIKE 'f%'")


def test_what_is_in_use_costs_no_question(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the list after connecting; then pushes ask nothing more."""
    registry.push("u/app", "warm", b"layer")
    registry.push("u/app", "warmer", b"another layer")
    store = registry.rooms.store

    def never(*_: object) -> list[str]:
        raise AssertionError("asked again")

    monkeypatch.setattr(store.features, "_listed", never)
    monkeypatch.setattr(store.features, "_use", never)
    registry.push("u/app", "v1", b"a third layer")


def test_callers_ask_beside_each_other() -> None:
    """A database that says nothing makes each of them wait for its own answer, and not for those of all before it."""
    together = threading.Barrier(8)

    def listed() -> list[str]:
        together.wait(60)
        return ["known"]

    features = Features(listed, lambda _: [])
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(features.lacking, [Feature("known", READERS)] * 8))
    assert answers == [[]] * 8
