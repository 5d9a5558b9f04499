"""The things that a manifest names: the streams that it refers to, and those that must stand when it is pushed.

A manifest that names few things requires them one by one. A manifest that names many refers to them as a set, which is
stored beforehand and judged outside of the append's lock, because others wait for that lock.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from domain.changes import Member, RefIs, set_target
from domain.decision import Reason, ReferenceSet, Requirement
from domain.digests import DEFAULT_ALGORITHM, digest_of
from domain.facts import Facts, Reference
from domain.names import RepositoryName
from domain.streams import LIVE, PRESENT, link_stream, manifest_stream

# Beyond so many streams a manifest names them by a set.
NAMED_DIRECTLY_MAX = 100

Alternatives = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NamedMissing(Reason):
    """The manifest names something that its repository does not have."""

    digest: str


@dataclass(frozen=True, slots=True)
class Named:
    """The references of a manifest's stream and the requirements of its push: one by one, or as a set."""

    refers_to: tuple[str, ...]
    requires: tuple[Requirement, ...] = ()
    references: ReferenceSet | None = None


def may_be_manifest(reference: Reference) -> bool:
    """True for a child of an index, which may be a manifest or, as in build caches, a blob."""
    return reference.role in ("child", "blob")


def named_by(repository: RepositoryName, facts: Facts) -> Named:
    """Everything that a manifest with these facts names in its repository."""
    wanted = dict.fromkeys((each.digest, may_be_manifest(each)) for each in facts.references if each.required)
    needs = tuple((digest, _alternatives(repository, digest, either)) for digest, either in wanted)
    streams = tuple(
        dict.fromkeys(
            manifest_stream(repository, each.digest) if each.role == "child" else link_stream(repository, each.digest)
            for each in facts.references
        )
    )
    if len(streams) <= NAMED_DIRECTLY_MAX:
        return Named(streams, tuple(Requirement(RefIs(each), NamedMissing(digest)) for digest, each in needs))
    members = _members(streams, [each for _, each in needs])
    digest = str(digest_of(DEFAULT_ALGORITHM, _canonical(members)))
    missing = tuple(NamedMissing(each) for each, _ in needs)
    return Named((set_target(digest),), references=ReferenceSet(digest, repository, members, missing))


def _alternatives(repository: RepositoryName, digest: str, either: bool) -> Alternatives:
    link = (link_stream(repository, digest), LIVE)
    return ((manifest_stream(repository, digest), PRESENT), link) if either else (link,)


def _members(streams: Sequence[str], needs: Sequence[Alternatives]) -> tuple[Member, ...]:
    members = {stream: Member(stream, refers=True) for stream in streams}
    for number, alternatives in enumerate(needs):
        for (stream, ref), other in zip(alternatives, alternatives[::-1], strict=True):
            or_target, or_ref = other if len(alternatives) > 1 else (None, None)
            members[stream] = Member(stream, stream in members, number, ref, or_target, or_ref)
    return tuple(members.values())


def _canonical(members: Sequence[Member]) -> bytes:
    rows = [(each.target, each.refers, each.need, each.ref, each.or_target, each.or_ref) for each in members]
    return json.dumps(rows, separators=(",", ":")).encode()
