"""Long lists of what an event refers to and needs: stored beforehand, named by it, judged for what changed since."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from eventstore import verify
from eventstore.sets import MEMBERS_AT_A_TIME
from eventstore.store import Store
from eventstore.types import (
    Appended,
    AtMost,
    Expand,
    JudgedSet,
    Member,
    NewEvent,
    Outcome,
    Refused,
    SetHolds,
    StoreUnavailable,
    Unreferenced,
    set_target,
)
from tests.eventstore.making import command, event
from tests.postgres import Database
from tests.upkeep import sweep_sets

SET = "sha256:abc"
MEMBERS = (
    Member("link-1", refers=True, need=0, ref="live"),
    Member("manifest-2", refers=True, need=1, ref="present", or_target="link-2", or_ref="live"),
    Member("link-2", refers=False, need=1, ref="live", or_target="manifest-2", or_ref="present"),
    Member("foreign", refers=True),
)


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store that has the set, and in which all that it needs stands."""
    made = Store(database.app_url)
    made.append(command(event("link-1", ref="live"), event("manifest-2", ref="present")))
    made.sets.put(SET, MEMBERS)
    yield made
    made.close()


def push(store: Store, judged: JudgedSet | None = None, *, digest: str = SET) -> Outcome:
    """Append an event that refers to the set if the set holds, by this judgement or as if it had been judged now."""
    pushed = event("pusher", ref="present", refers_to=(set_target(digest),))
    judged = judged or JudgedSet(store.head(), "", ())
    return store.append(command(pushed, needs=(SetHolds(digest, "key", judged.seen, judged.log),)))


def listed(database: Database) -> set[str]:
    """The sets that the next sweep looks at."""
    with psycopg.connect(database.app_url) as connection:
        return {row[0] for row in connection.execute("SELECT digest FROM log.es_set WHERE idle_since IS NOT NULL")}


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ((), True),
        ((event("link-1", ref="live"),), True),
        ((event("elsewhere", ref=None), event("foreign", ref=None)), True),
        ((event("link-1", ref=None), event("link-1", ref="live")), True),
        ((event("link-1", ref=None),), False),
        ((event("link-1", ref="dying"),), False),
        ((event("manifest-2", ref=None),), False),
        ((event("manifest-2", ref=None), event("link-2", ref="live")), True),
        ((event("link-2", ref="live"), event("manifest-2", ref=None)), True),
    ],
)
def test_what_changes_after_a_set_was_judged_is_judged_under_the_lock(
    store: Store, changes: tuple[NewEvent, ...], holds: bool
) -> None:
    """The outcome is the same as if the whole set were judged under the lock."""
    judged = store.sets.judge(SET)
    assert judged.failed == ()
    for each in changes:
        store.append(command(each))
    outcome = push(store, judged)
    assert isinstance(outcome, Appended if holds else Refused)
    if isinstance(outcome, Refused):
        assert outcome.failed_conditions == (0,)
    assert (store.sets.judge(SET).failed == ()) is holds


def test_what_was_judged_in_another_epoch_of_the_log_is_judged_again(store: Store, database: Database) -> None:
    """A restore may have undone what was judged, and positions of before say nothing about the present log."""
    before = store.sets.judge(SET)
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        connection.execute("SELECT log.es_raise_epoch(0::smallint, epoch) FROM log.es_log")
    refused = push(store, before)
    assert isinstance(refused, Refused)
    assert refused.failed_conditions == (0,)
    assert isinstance(push(store, store.sets.judge(SET)), Appended)


def test_what_was_judged_in_a_log_that_lay_elsewhere_is_judged_again(store: Store, database: Database) -> None:
    """After a restore nobody may have noted yet that the epoch is another one."""
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        before = store.sets.judge(SET)
        for column, value in (("system", "'another'"), ("line", "line + 1"), ("relation", "'1/1'")):
            elsewhere = {name: name for name in ("system", "line", "relation")} | {column: value}
            connection.execute(
                "ALTER FUNCTION log.es_whereabouts() RENAME TO es_whereabouts_here;"
                "CREATE FUNCTION log.es_whereabouts(OUT system text, OUT line integer, OUT relation text)"
                f" LANGUAGE sql STABLE AS $$ SELECT {', '.join(elsewhere.values())} FROM log.es_whereabouts_here() $$"
            )
            assert isinstance(push(store, before), Refused), column
            connection.execute(
                "DROP FUNCTION log.es_whereabouts();ALTER FUNCTION log.es_whereabouts_here() RENAME TO es_whereabouts"
            )
    assert isinstance(push(store, before), Appended)


def test_a_judgement_of_the_release_before_counts_by_its_position(store: Store) -> None:
    """It does not say in which log it was made."""
    assert isinstance(push(store, JudgedSet(store.head(), "", ())), Appended)


def test_what_is_missing_is_told_by_the_number_of_the_need(store: Store) -> None:
    """Either of two streams is enough for one."""
    store.append(command(event("link-1", ref=None)))
    assert store.sets.judge(SET).failed == (0,)
    store.append(command(event("manifest-2", ref=None)))
    assert store.sets.judge(SET).failed == (0, 1)
    store.append(command(event("link-2", ref="live")))
    assert store.sets.judge(SET).failed == (0,)


def test_a_set_that_is_not_whole_is_not_taken(store: Store, database: Database) -> None:
    """A set that nobody has stored is not taken either."""
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        begun = connection.execute("SELECT log.es_begin_set('sha256:half', now())").fetchone()
        assert begun is not None
        connection.execute("SELECT log.es_put_members(%s, '{a}', '{t}', '{x}', '{NULL}', '{NULL}', '{0}')", begun)
        assert connection.execute("SELECT log.es_finish_set(%s, 2)", begun).fetchone() == (False,)
    for digest in ("sha256:half", "sha256:none"):
        assert isinstance(push(store, digest=digest), Refused)


def test_who_refers_through_a_set_is_known_and_counts(store: Store) -> None:
    """It counts for the members that it refers to, not for those that would also do."""
    assert store.referring_streams("link-1", 10) == [], "a set that nobody names refers to nothing"
    push(store)
    store.append(command(event("another", refers_to=("link-1",))))
    found = {each.target: store.referring_streams(each.target, 10) for each in MEMBERS}
    assert found == {"link-1": ["another", "pusher"], "manifest-2": ["pusher"], "link-2": [], "foreign": ["pusher"]}
    assert store.referring_streams("link-1", 1) == ["another"]
    for target, refused in (("foreign", True), ("link-2", False)):
        outcome = store.append(command(event("x"), needs=(Unreferenced(target),)))
        assert isinstance(outcome, Refused) is refused
    store.append(command(event("pusher", ref=None, refers_to=())))
    assert isinstance(store.append(command(event("x"), needs=(Unreferenced("foreign"),))), Appended)


def test_a_set_is_swept_once_no_stream_refers_to_it(store: Store, database: Database) -> None:
    """It goes with all its members, however many. A later push that would name it stores it again."""
    many = [Member(f"m{number}", refers=True) for number in range(2 * MEMBERS_AT_A_TIME + 7)]
    store.sets.put("sha256:many", many)
    push(store)
    assert sweep_sets(database, timedelta(hours=-1)) == 0
    assert sweep_sets(database) == 1
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        assert connection.execute("SELECT digest FROM log.es_set").fetchall() == [(SET,)]
        assert connection.execute("SELECT count(*) FROM log.es_set_member").fetchone() == (len(MEMBERS),)
    assert isinstance(push(store, digest="sha256:many"), Refused)
    store.sets.put("sha256:many", many)
    assert isinstance(push(store, digest="sha256:many"), Appended)
    assert sweep_sets(database) == 1
    assert store.referring_streams(f"m{MEMBERS_AT_A_TIME}", 10) == ["pusher"]
    assert verify.verify(database.app_url) == []


def test_a_set_is_looked_at_only_when_perhaps_no_stream_refers_to_it(store: Store, database: Database) -> None:
    """The sweep lists it from its beginning, and again from the moment at which a reference goes."""
    push(store)
    store.append(
        command(event("second", refers_to=(set_target(SET),)), needs=(SetHolds(SET, "key", store.head(), ""),))
    )
    assert listed(database) == {SET}
    assert sweep_sets(database) == 0
    assert listed(database) == set()
    store.sets.put(SET, MEMBERS)
    assert listed(database) == set()
    for stream, removed in (("second", 0), ("pusher", 1)):
        store.append(command(event(stream, ref=None, refers_to=())))
        assert listed(database) == {SET}
        assert sweep_sets(database) == removed
    assert listed(database) == set()


def test_a_set_that_is_stored_again_after_a_while_is_not_swept_before_it_is_named(
    store: Store, database: Database
) -> None:
    """Idle means since it was last wanted."""
    in_two_hours = datetime.now(UTC) + timedelta(hours=2)
    with closing(Store(database.app_url, clock=lambda: in_two_hours, allow_clock_skew=True)) as later:
        later.sets.put(SET, MEMBERS)
    assert sweep_sets(database) == 0
    assert isinstance(push(store), Appended)


def test_a_part_of_a_set_is_not_judged_for_it(store: Store, database: Database) -> None:
    """Another process may be storing it anew at that moment, after a sweep: what is not there yet may be missing."""
    store.append(command(event("link-1", ref=None)))
    assert sweep_sets(database) == 1
    with psycopg.connect(database.app_url, autocommit=True) as connection:
        begun = connection.execute("SELECT log.es_begin_set(%s, now())", (SET,)).fetchone()
        assert begun is not None
        for number in (1, 0):
            with pytest.raises(StoreUnavailable, match="not whole"):
                store.sets.judge(SET)
            member = MEMBERS[number]
            columns = ([member.target], [member.ref], [member.or_target], [member.or_ref], [member.need])
            connection.execute(
                "SELECT log.es_put_members(%s, %s::text[], '{t}', %s::text[], %s::text[], %s::text[], %s::integer[])",
                (*begun, *columns),
            )
        assert connection.execute("SELECT log.es_finish_set(%s, 2)", begun).fetchone() == (True,)
    assert store.sets.judge(SET).failed == (0,)


def test_verify_misses_a_set_and_rebuild_keeps_what_refers_to_it(store: Store, database: Database) -> None:
    """A set is no event: what names it must find it."""
    push(store)
    verify.rebuild(database.owner_url)
    assert verify.verify(database.app_url) == []
    assert store.referring_streams("foreign", 10) == ["pusher"]
    assert listed(database) == {SET}
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_set SET complete = false")
    assert [each.about for each in verify.verify(database.app_url)] == [f"reference from pusher to {set_target(SET)}"]


def rows_of_refs(database: Database) -> set[tuple[object, ...]]:
    """The rows of es_ref with the transactions that wrote them."""
    with psycopg.connect(database.admin_url) as connection:
        return set(connection.execute("SELECT target, from_stream, xmin::text, xmax::text FROM log.es_ref").fetchall())


def test_references_that_are_repeated_are_not_written_again(store: Store, database: Database) -> None:
    """Only references that were added or are gone are written."""
    store.append(command(event("m", ref="present", refers_to=("a", "b", "c"))))
    before = rows_of_refs(database)
    store.append(command(event("m", ref="present", refers_to=("c", "a", "b", "a"))))
    assert rows_of_refs(database) == before
    store.append(command(event("m", ref="present", refers_to=("a", "c", "d"))))
    after = rows_of_refs(database)
    assert {row[0] for row in after} == {"a", "c", "d"}
    assert {row[0] for row in after & before} == {"a", "c"}
    assert verify.verify(database.app_url) == []
    verify.rebuild(database.owner_url)
    assert {row[0] for row in rows_of_refs(database)} == {"a", "c", "d"}


def test_an_expansion_is_bounded_and_a_command_may_ask_for_few(store: Store) -> None:
    """A change of very many streams is then made by commands of bounded length."""
    store.append(command(*(event(f"tag-{number}", ref="manifest-2") for number in range(5))))
    expand = Expand("manifest-2", "tag-", "key", "Gone", 1, "{}", "tag", most=2)
    few = AtMost("manifest-2", "tag-", 2)
    for left in (5, 3):
        refused = store.append(command(expand, needs=(few,)))
        assert isinstance(refused, Refused)
        assert refused.failed_conditions == (0,)
        outcome = store.append(command(expand))
        assert isinstance(outcome, Appended)
        assert len(outcome.positions) == 2, left
    outcome = store.append(command(expand, needs=(few,)))
    assert isinstance(outcome, Appended)
    assert len(outcome.positions) == 1
