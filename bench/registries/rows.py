"""Lists the rows of the bench: which work is measured, in which unit, with which goals and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

REQUESTS = "/s"
BYTES = "GB/s"
STORM = "storm"


class Start(Enum):
    """The state in which a row finds a registry."""

    RUNNING = auto()
    """As the rows before left it: what it keeps in memory is there."""
    ANEW = auto()
    """Just started, so that no answer is kept; its files are in the page cache."""
    COLD = auto()
    """Just started, and none of its files is in the page cache."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    `load` is the load program's mode and flags; `before` is a load that runs first and is not measured.
    `limits` names measurements of the same work without a registry (see limits.py). `goals` says how many times as fast
    as a peer, or as a limit, ours must be; `cpu_goals` says how many times a peer's processor time ours may take.
    A row that `writes` leaves work to be done in the background, which is counted too.
    """

    key: str
    name: str
    load: tuple[str, ...]
    unit: str = REQUESTS
    goals: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    start: Start = Start.RUNNING
    before: tuple[str, ...] = ()
    cpu_goals: Mapping[str, float] = field(default_factory=dict)
    writes: bool = False


def _get(what: str, method: str = "GET", *more: str) -> tuple[str, ...]:
    return ("get", "-what", what, "-method", method, *more)


def _than(docker_registry: float, distribution: float, zot: float) -> dict[str, float]:
    """Goals by the names that the peers have in peers.py."""
    return {"docker-registry": docker_registry, "distribution": distribution, "zot": zot}


_ONE = ("-connections", "1")
_FOUND = _than(20, 5, 3)
_SMALL = _than(3, 2, 1)
_LARGE = {**_than(2.5, 1.5, 1.1), "fdatasync": 0.9}
_DISK = ("sha256", "fdatasync")
_BARE = ("bare WSGI",)
ROWS = (
    Row("ping", "GET /v2/", _get("ping"), goals=_than(15, 2.2, 1.5), limits=_BARE),
    Row("manifest-tag", "GET manifest by tag", _get("manifest-tag"), goals=_FOUND, limits=_BARE),
    Row("manifest-tag-head", "HEAD manifest by tag", _get("manifest-tag", "HEAD"), goals=_FOUND, limits=_BARE),
    Row("manifest-digest", "GET manifest by digest", _get("manifest-digest"), goals=_FOUND, limits=_BARE),
    Row("manifest-digest-head", "HEAD manifest by digest", _get("manifest-digest", "HEAD"), goals=_FOUND, limits=_BARE),
    Row("blob-head", "HEAD blob", _get("blob", "HEAD"), goals=_FOUND, limits=_BARE),
    Row("blob-4k", "GET blob 4 KiB", _get("blob"), goals=_than(25, 20, 2.5), limits=("sendfile",)),
    Row("blob-1m", "GET blob 1 MiB", _get("blob-1m"), BYTES, _than(4.5, 4, 1.3), ("sendfile",)),
    Row(
        "blob-large",
        "GET large blob, 1 stream",
        _get("blob-big", "GET", *_ONE),
        BYTES,
        {"docker-registry": 1.4},
        ("sendfile",),
    ),
    Row(
        "push-large-patch",
        "push large blob, PATCH+PUT",
        ("push-blob", "-patch"),
        BYTES,
        _LARGE,
        _DISK,
        writes=True,
    ),
    Row("push-large-put", "push large blob, PUT", ("push-blob",), BYTES, _LARGE, _DISK, writes=True),
    Row(
        "push-small",
        "push small images, PATCH+PUT",
        ("push-images", "-patch"),
        goals=_SMALL,
        limits=("fdatasync of 4 files",),
        cpu_goals={"zot": 1.1},
        writes=True,
    ),
    Row(
        "push-small-put",
        "push small images, PUT",
        ("push-images",),
        goals=_SMALL,
        limits=("fdatasync of 4 files",),
        cpu_goals={"zot": 1.1},
        writes=True,
    ),
    Row("push-again", "push unchanged images again", ("push-again",), goals=_than(5, 3, 1.5), writes=True),
    Row(
        STORM,
        "200 clients push one repository, one tag",
        ("push-storm", "-connections", "200"),
        goals=_than(3, 2, 2),
        writes=True,
    ),
    Row(
        "mixed",
        "75 % pulls, 25 % pushes",
        ("push-images", "-patch", "-pulls", "0.75"),
        goals=_than(5, 4, 1.5),
        writes=True,
    ),
    Row(
        "get-while-push",
        "GET manifest by tag, 8 push",
        ("get-while-pushing", "-what", "manifest-tag", "-patch"),
        writes=True,
    ),
    # Each manifest is asked for once. The first half is not measured: it opens connections and warms what all share.
    Row(
        "manifest-tag-first",
        "GET manifest by tag, first time",
        _get("manifest-tag", "GET", "-once", "-half", "2"),
        start=Start.ANEW,
        before=_get("manifest-tag", "GET", "-once", "-half", "1"),
    ),
    Row("manifest-tag-cold", "GET manifest by tag, cold", _get("manifest-tag", "GET", "-once"), start=Start.COLD),
    Row("blob-4k-cold", "GET blob 4 KiB, cold", _get("blob", "GET", "-once"), start=Start.COLD),
)


def chosen(keys: str) -> list[Row]:
    """The rows of these keys (separated by commas or spaces), all for none. Raises ValueError for an unknown key."""
    wanted = keys.replace(",", " ").split()
    unknown = set(wanted) - {row.key for row in ROWS}
    if unknown:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(row.key for row in ROWS)}")
    return [row for row in ROWS if not wanted or row.key in wanted]
