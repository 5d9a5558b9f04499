"""Decisions end as plain rules say, whatever others append between the question about the state and the append."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import manifest as manifests
from domain import references
from domain.blob import Blob, BlobCommitted, CommitBlob, decide_commit, from_state, next_generation, to_state
from domain.changes import StreamState
from domain.decision import Decision, Refusal
from domain.digests import Digest
from domain.event import Event
from domain.link import BlobLinked, BlobUnlinked, MountBlob, UnlinkBlob
from domain.manifest import UNTAGGED_MAX, DeleteManifest, ManifestDeleted, ManifestPushed, PushManifest, TooManyTags
from domain.names import RepositoryName, TagName, UploadId
from domain.preconditions import EXISTS, Match
from domain.repository import RepositoryCreated
from domain.session_id import SessionId
from domain.streams import LIVE, blob_stream, link_stream, manifest_stream, repository_stream
from domain.tag import DeleteTag, TagDeleted, TagMoved
from domain.upload import CancelUpload, UploadEnded, decide_cancellation, proved_session, recorded_session
from tests.domain.plain import BLOBS, FACTS, MANIFESTS, REPOSITORIES, SIZE, TAGS, Command, Plain, decide
from tests.domain.streams import Streams

REPOSITORY = REPOSITORIES[0]
SESSION = SessionId(1, datetime(2026, 1, 1, tzinfo=UTC), None, UploadId("a" * 32))

blobs = st.sampled_from(BLOBS)
digests = st.sampled_from(MANIFESTS)
etags = st.frozensets(st.sampled_from([EXISTS, *(str(each) for each in MANIFESTS[:3]), "no digest"]), max_size=2)
matches = st.one_of(st.just(Match()), st.builds(Match, etags, etags))


def _push(repository: RepositoryName, digest: Digest, tags: list[TagName], by_tag: bool, match: Match) -> PushManifest:
    moved = tuple(tags[:1] if by_tag else tags)
    by_tag = by_tag and bool(moved)
    return PushManifest(
        repository, digest, "application/x-manifest", SIZE, FACTS[digest], moved, by_tag=by_tag, match=match
    )


def commands_of(repositories: st.SearchStrategy[RepositoryName]) -> st.SearchStrategy[Command]:
    """Any command on one of the repositories."""
    tags = st.lists(st.sampled_from(TAGS), unique=True)
    return st.one_of(
        st.builds(CommitBlob, repositories, blobs, st.just(SIZE)),
        st.builds(MountBlob, repositories, blobs, st.sampled_from(REPOSITORIES)),
        st.builds(UnlinkBlob, repositories, blobs),
        st.builds(_push, repositories, digests, tags, st.booleans(), matches),
        st.builds(DeleteManifest, repositories, digests),
        st.builds(DeleteTag, repositories, st.sampled_from(TAGS), st.builds(Match, etags)),
    )


EVERYTHING: list[Command] = [CommitBlob(each, blob, SIZE) for each in REPOSITORIES for blob in BLOBS]


def folded(events: list[Event]) -> Plain:
    """The links, manifests and tags that exist after these events."""
    found = Plain()
    for each in events:
        match each:
            case BlobLinked(repository=repository, digest=digest):
                found.links.add((repository, digest))
            case BlobUnlinked(repository, digest):
                found.links.remove((repository, digest))
            case BlobCommitted(digest):
                found.blobs.add(digest)
            case RepositoryCreated(repository):
                found.repositories.add(repository)
            case ManifestPushed(repository=repository, digest=digest):
                found.manifests.add((repository, digest))
            case ManifestDeleted(repository, digest):
                found.manifests.remove((repository, digest))
            case TagMoved(repository, tag, digest):
                found.tags[repository, tag] = digest
            case TagDeleted(repository, tag):
                del found.tags[repository, tag]
    return found


def run(streams: Streams, plain: Plain, together: Sequence[Command]) -> None:
    """Decide all commands, then append them one by one; each ends as the plain rules say."""
    decided = [(each, decide(streams, each), plain.asked(each)) for each in together]
    for command, decision, asked in decided:
        if isinstance(decision, Refusal):
            assert set(decision.reasons) == set(asked)
            continue
        assert asked == ()
        found = streams.carry_out(decision)
        while found == Refusal():
            # Somebody else was first and has made the blob live, so the command is decided again.
            again = decide(streams, command)
            assert isinstance(again, Decision)
            found = streams.carry_out(again)
        assert set(found.reasons if found else ()) == set(plain.appended(command))


FULL: list[list[Command]] = [
    EVERYTHING,
    [_push(REPOSITORY, each, list(TAGS[:number]), False, Match()) for number, each in enumerate(MANIFESTS[:2])],
]


@given(filled=st.booleans(), steps=st.lists(commands_of(st.sampled_from(REPOSITORIES)), max_size=15))
def test_one_after_another_every_command_ends_as_the_plain_rules_say(filled: bool, steps: list[Command]) -> None:
    """Streams and events agree with the plain sets after each."""
    streams, plain = Streams(), Plain()
    for each in FULL if filled else []:
        run(streams, plain, each)
    for step in steps:
        run(streams, plain, [step])
        assert streams.live() == plain.refs()
        assert folded(streams.events).refs() == plain.refs()


@pytest.mark.parametrize("directly_max", [references.NAMED_DIRECTLY_MAX, 1], ids=["one by one", "as a set"])
@given(races=st.lists(st.lists(commands_of(st.just(REPOSITORY)), min_size=2, max_size=3), min_size=1, max_size=6))
def test_commands_that_were_decided_on_an_old_state_end_as_the_plain_rules_say(
    directly_max: int, races: list[list[Command]]
) -> None:
    """All commands of a race are decided before the first is appended. References are judged directly or as a set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "NAMED_DIRECTLY_MAX", directly_max)
        streams, plain = Streams(), Plain(directly_max=directly_max)
        for race in races:
            for each in FULL:
                run(streams, plain, each)
            run(streams, plain, race)
            assert streams.live() == plain.refs()
            assert folded(streams.events).refs() == plain.refs()


@given(st.sampled_from(MANIFESTS), st.booleans())
def test_a_manifest_refers_to_all_that_it_names_until_it_is_deleted(digest: Digest, as_set: bool) -> None:
    """A garbage collector will see by these references whether a blob is still needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "NAMED_DIRECTLY_MAX", 0 if as_set else 100)
        streams, plain = Streams(), Plain()
        run(streams, plain, EVERYTHING)
        run(streams, plain, [_push(REPOSITORY, each, [], False, Match()) for each in MANIFESTS[:2]])
        push = _push(REPOSITORY, digest, [], False, Match())
        run(streams, plain, [push])
        if (REPOSITORY, str(digest)) not in plain.manifests:
            return
        stream = manifest_stream(REPOSITORY, digest)
        found = streams.refers[stream]
        if as_set:
            (target,) = found
            found = frozenset(each.target for each in streams.sets[target.removeprefix("set-")] if each.refers)
        assert found == {
            manifest_stream(REPOSITORY, each.digest) if each.role == "child" else link_stream(REPOSITORY, each.digest)
            for each in push.facts.references
        }
        run(streams, plain, [DeleteManifest(REPOSITORY, digest)])
        assert streams.refers[stream] == frozenset()


@pytest.mark.parametrize("tags", [0, 1, UNTAGGED_MAX, UNTAGGED_MAX + 1, 2 * UNTAGGED_MAX + 1])
def test_a_deletion_takes_all_tags_along_however_many(tags: int) -> None:
    """One append deletes only so many tags, and the manifest stays until its last tags go."""
    streams, plain = Streams(), Plain()
    run(streams, plain, EVERYTHING)
    names = [TagName(f"t{number}") for number in range(tags)]
    run(streams, plain, [_push(REPOSITORY, MANIFESTS[0], names, False, Match())])
    command = DeleteManifest(REPOSITORY, MANIFESTS[0])
    steps = 0
    while (refusal := streams.append(manifests.decide_deletion(command))) is not None:
        assert refusal == Refusal((TooManyTags(),))
        assert streams.append(manifests.decide_untagging(command)) is None
        assert isinstance(streams.events[-1], TagDeleted)
        steps += 1
    assert steps == max(0, (tags - 1) // UNTAGGED_MAX)
    assert not [each for each in streams.live() if each.startswith(("tag-", "manifest-"))]
    assert sum(isinstance(each, TagDeleted) for each in streams.events) == tags


@given(st.lists(st.sampled_from(["commit", "two commits", "collect", "collect meanwhile"]), max_size=12))
def test_a_blob_gets_a_new_generation_once_it_was_given_up(steps: list[str]) -> None:
    """All who commit it while it is live get the same generation."""
    streams, stream = Streams(), blob_stream(BLOBS[0])
    command = CommitBlob(REPOSITORY, BLOBS[0], SIZE)
    collected = 0

    def decided() -> Decision:
        decision = decide_commit(streams.state(stream), command)
        assert isinstance(decision, Decision)
        return decision

    def collect() -> int:
        found = streams.state(stream)
        if found.ref != LIVE:
            return 0
        streams.states[stream] = StreamState(stream, found.version + 1, None, found.state)
        return 1

    for step in steps:
        if step == "collect":
            collected += collect()
            continue
        decisions = [decided() for _ in range(2 if step == "two commits" else 1)]
        if step == "collect meanwhile":
            was_live = collect()
            collected += was_live
            if was_live:
                assert streams.append(decisions[0]) == Refusal()
                decisions = [decided()]
        for each in decisions:
            if streams.append(each) is not None:
                # The first of the two has appended an event of the blob meanwhile.
                assert streams.append(decided()) is None
        found = streams.state(stream)
        assert found.ref == LIVE
        assert found.state is not None
        assert from_state(found.state) == Blob(SIZE, collected)
        assert next_generation(found) == collected


@pytest.mark.parametrize("ended_meanwhile", [False, True])
def test_a_commit_finishes_its_session_in_the_same_append_or_does_not_happen(ended_meanwhile: bool) -> None:
    """Nothing is left of a commit whose session another request has ended."""
    streams, session = Streams(), proved_session(SESSION, REPOSITORY, "anonymous", None)
    command = CommitBlob(REPOSITORY, BLOBS[0], SIZE, session)
    decision = decide_commit(streams.state(blob_stream(BLOBS[0])), command)
    assert isinstance(decision, Decision)
    if ended_meanwhile:
        cancelled = decide_cancellation(session, CancelUpload())
        assert isinstance(cancelled, Decision)
        assert streams.append(cancelled) is None
        assert streams.append(decision) == Refusal()
        assert streams.live() == {}
    else:
        assert streams.append(decision) is None
        assert set(streams.live()) == {
            blob_stream(BLOBS[0]),
            link_stream(REPOSITORY, BLOBS[0]),
            repository_stream(REPOSITORY),
        }
    ended = recorded_session(streams.state(session.stream))
    assert ended is not None
    again = decide_commit(streams.state(blob_stream(BLOBS[0])), replace(command, session=ended))
    assert again == Refusal((UploadEnded(),))


@given(st.integers(0), st.integers(0))
def test_states_survive_their_text(size: int, generation: int) -> None:
    assert from_state(to_state(Blob(size, generation))) == Blob(size, generation)
