"""Sets of streams that one event refers to, where they are too many to be judged under the append's lock."""

from collections.abc import Callable, Sequence

from eventstore.reader import Reader
from eventstore.types import Clock, JudgedSet, Member, StoreUnavailable

MEMBERS_AT_A_TIME = 1000
_TRIES = 3
_MEMBER_COLUMNS = ("target", "refers", "ref", "or_target", "or_ref", "need")
_PUT_MEMBERS = (
    "SELECT log.es_put_members(%s, %s::text[], %s::boolean[], %s::text[], %s::text[], %s::text[], %s::integer[])"
)


class Sets:
    """The sets of one log. `reader` answers the connections of this process."""

    def __init__(self, reader: Callable[[], Reader], clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    def put(self, digest: str, members: Sequence[Member]) -> None:
        """Store the streams that a command refers to and needs, before the append that names them.

        The digest tells sets apart, and storing a set again costs one look. A set of any size is stored in slices that
        hold no lock. No two members are of one stream.
        """
        reader = self._reader()
        for _ in range(_TRIES):
            (own,) = reader.row("SELECT log.es_begin_set(%s, %s)", (digest, self._clock()))
            if own is None:
                return
            for start in range(0, len(members), MEMBERS_AT_A_TIME):
                some = members[start : start + MEMBERS_AT_A_TIME]
                columns = [[getattr(each, name) for each in some] for name in _MEMBER_COLUMNS]
                reader.rows(_PUT_MEMBERS, [own, *columns])
            (finished,) = reader.row("SELECT log.es_finish_set(%s, %s)", (own, len(members)))
            if finished:
                return
        raise StoreUnavailable(f"the set {digest} could not be stored")

    def judge(self, digest: str) -> JudgedSet:
        """The needs of a stored set that do not hold, and the position up to which that was judged, without any lock.

        Raises StoreUnavailable if the set is not there whole: it was swept since, and is to be stored again.
        """
        seen, log, failed = self._reader().row(
            "SELECT j.seen, j.judged_in, j.failed FROM log.es_judge_set(0::smallint, %s) AS j", (digest,)
        )
        if seen is None:
            raise StoreUnavailable(f"the set {digest} is not stored, or not whole")
        return JudgedSet(seen, log, tuple(failed or ()))
