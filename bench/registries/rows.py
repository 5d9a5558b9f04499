"""The rows of the bench: what is measured, in which unit, beside what it would cost without us."""

from dataclasses import dataclass

REQUESTS = "/s"
BYTES = "GB/s"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    `load` is the load program's mode and flags; `goal` how many times as fast as docker-registry ours is to be;
    `limits` name what the same work costs without us (see limits.py). A `cold` row is measured on a registry that was
    just started and whose files are not in memory. What a row that `writes` leaves to be done afterwards is counted.
    """

    key: str
    name: str
    load: tuple[str, ...]
    unit: str = REQUESTS
    goal: float | None = None
    limits: tuple[str, ...] = ()
    cold: bool = False
    writes: bool = False


def _get(what: str, method: str = "GET", *more: str) -> tuple[str, ...]:
    return ("get", "-what", what, "-method", method, *more)


_ONE = ("-connections", "1")
ROWS = (
    Row("ping", "GET /v2/", _get("ping"), goal=15, limits=("bare WSGI",)),
    Row("manifest-tag", "GET manifest by tag", _get("manifest-tag"), goal=15, limits=("bare WSGI",)),
    Row("manifest-tag-head", "HEAD manifest by tag", _get("manifest-tag", "HEAD"), goal=15, limits=("bare WSGI",)),
    Row("manifest-digest", "GET manifest by digest", _get("manifest-digest"), goal=15, limits=("bare WSGI",)),
    Row(
        "manifest-digest-head",
        "HEAD manifest by digest",
        _get("manifest-digest", "HEAD"),
        goal=15,
        limits=("bare WSGI",),
    ),
    Row("blob-head", "HEAD blob", _get("blob", "HEAD"), goal=15, limits=("bare WSGI",)),
    Row("blob-4k", "GET blob 4 KiB", _get("blob"), goal=25, limits=("sendfile",)),
    Row("blob-1m", "GET blob 1 MiB", _get("blob-1m"), BYTES, 4, ("sendfile",)),
    Row("blob-large", "GET large blob, 1 stream", _get("blob-big", "GET", *_ONE), BYTES, 1.4, ("sendfile",)),
    Row(
        "push-large-patch",
        "push large blob, PATCH+PUT",
        ("push-blob", "-patch"),
        BYTES,
        2.5,
        ("sha256", "fdatasync"),
        writes=True,
    ),
    Row("push-large-put", "push large blob, PUT", ("push-blob",), BYTES, 2.5, ("sha256", "fdatasync"), writes=True),
    Row("push-small", "push small images", ("push-images",), goal=3.5, limits=("fdatasync of 4 files",), writes=True),
    Row("mixed", "75 % pulls, 25 % pushes", ("push-images", "-pulls", "0.75"), goal=5, writes=True),
    Row("get-while-push", "GET manifest by tag, 8 push", ("get-while-pushing", "-what", "manifest-tag"), writes=True),
    Row("manifest-tag-cold", "GET manifest by tag, cold", _get("manifest-tag", "GET", "-once"), cold=True),
    Row("blob-4k-cold", "GET blob 4 KiB, cold", _get("blob", "GET", "-once"), cold=True),
)


def chosen(keys: str) -> list[Row]:
    """The rows of these keys, parted by commas or spaces; all for none. Raises ValueError for one that is unknown."""
    wanted = keys.replace(",", " ").split()
    unknown = set(wanted) - {row.key for row in ROWS}
    if unknown:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(row.key for row in ROWS)}")
    return [row for row in ROWS if not wanted or row.key in wanted]
