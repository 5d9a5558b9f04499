"""The things a manifest names, as the store takes them: streams it refers to, and what must stand at the append.

A manifest that names few things brings them along with its command. What names many is stored as a set beforehand and
judged outside of the append's lock, under which only what changed since then is looked at: others wait for that lock.
"""

import json
from collections.abc import Sequence

from command_api.manifest_checks import missing_blobs
from domain.digests import DEFAULT_ALGORITHM, digest_of
from domain.facts import Facts
from domain.names import RepositoryName
from domain.streams import LIVE, PRESENT, link_stream, manifest_stream
from eventstore.store import Store
from eventstore.types import Condition, Member, RefIs, SetHolds, set_target

# Beyond so many streams a manifest names them by a set.
NAMED_DIRECTLY_MAX = 100


class Naming:
    """The things that one manifest of a repository names.

    A child of an index may be a manifest or, as in build caches, a blob: either of two streams does.
    """

    def __init__(self, repository: RepositoryName, facts: Facts) -> None:
        self._repository = repository
        needed = dict.fromkeys(
            (each.digest, each.role in ("child", "blob")) for each in facts.references if each.required
        )
        self._needs = [(digest, self._alternatives(digest, either)) for digest, either in needed]
        self._named = tuple(
            dict.fromkeys(
                manifest_stream(repository, each.digest)
                if each.role == "child"
                else link_stream(repository, each.digest)
                for each in facts.references
            )
        )
        self._members = self._as_members() if len(self._named) > NAMED_DIRECTLY_MAX else ()
        self._digest = str(digest_of(DEFAULT_ALGORITHM, _canonical(self._members))) if self._members else ""

    def _alternatives(self, digest: str, either: bool) -> tuple[tuple[str, str], ...]:
        link = (link_stream(self._repository, digest), LIVE)
        return ((manifest_stream(self._repository, digest), PRESENT), link) if either else (link,)

    def _as_members(self) -> tuple[Member, ...]:
        members = {stream: Member(stream, refers=True) for stream in self._named}
        for number, (_, alternatives) in enumerate(self._needs):
            for (stream, ref), other in zip(alternatives, alternatives[::-1], strict=True):
                or_target, or_ref = other if len(alternatives) > 1 else (None, None)
                members[stream] = Member(stream, stream in members, number, ref, or_target, or_ref)
        return tuple(members.values())

    @property
    def refers_to(self) -> tuple[str, ...]:
        """The targets that the manifest's stream refers to."""
        return (set_target(self._digest),) if self._members else self._named

    def conditions(self, store: Store) -> list[Condition]:
        """The conditions that must hold when the manifest is appended; stores and judges the set where there is one.

        Raises 404 MANIFEST_BLOB_UNKNOWN if it does not hold now.
        """
        if not self._members:
            return [RefIs(alternatives) for _, alternatives in self._needs]
        store.put_set(self._digest, self._members)
        judged = store.judge_set(self._digest)
        if judged.failed:
            raise missing_blobs([self._needs[each][0] for each in judged.failed])
        return [SetHolds(self._digest, self._repository, judged.seen, judged.log)]

    def missing(self, failed: Sequence[int]) -> list[str]:
        """The digests that are missing, given which of the conditions failed.

        Of a set it is not known which: something has changed since it was judged, so it must be judged again.
        """
        return [] if self._members else [self._needs[each][0] for each in failed]


def _canonical(members: Sequence[Member]) -> bytes:
    rows = [(each.target, each.refers, each.need, each.ref, each.or_target, each.or_ref) for each in members]
    return json.dumps(rows, separators=(",", ":")).encode()
