"""Gives arbitrary bytes to each parser of clients' texts, and checks what must hold of the texts that it accepts.

The functions here are targets. `python -m tests.abuse.fuzzing.guided` feeds them by atheris, which looks for bytes that
reach new code.
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from urllib.parse import quote

from domain.digests import InvalidDigest, parse_digest
from domain.facts import facts_from_json, facts_to_json
from domain.image_config import with_config
from domain.manifest_parser import InvalidManifest, parse_manifest
from domain.media_types import KIND_OF_TYPE, OCI_MANIFEST
from domain.names import InvalidName, parse_repository_name, parse_tag, parse_upload_id
from domain.strict_json import InvalidJson, parse_object
from protocol.conditions import etags, not_modified
from protocol.errors import WireError
from protocol.messages import Request
from protocol.paging import next_link, parse_page
from protocol.ranges import InvalidChunkRange, Unsatisfiable, parse_chunk_range, parse_ranges
from protocol.routes import Kind, Route, parse_path
from tests.abuse.fuzzing import requests, values

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")
_BLOB_BYTES = 1000


def _text(data: bytes) -> str:
    """The text that the server makes of these bytes of a request line or a header (PEP 3333)."""
    return data.decode("latin-1")


def json_texts(data: bytes) -> None:
    """Accepted text is JSON for Python too, with the same meaning, and can be written as UTF-8 without NUL."""
    try:
        found = parse_object(data)
    except InvalidJson:
        return
    assert found == json.loads(data)
    assert "\x00" not in json.dumps(found, ensure_ascii=False).encode().decode()


def manifests(data: bytes) -> None:
    """An accepted manifest has a known type, and facts that survive being stored; a config never refuses one."""
    kind, _, body = data.partition(b"\n")
    try:
        parsed = parse_manifest(body, _text(kind) or OCI_MANIFEST)
    except InvalidManifest:
        return
    assert parsed.media_type in KIND_OF_TYPE
    facts = with_config(parsed.facts, body)
    assert facts_from_json(facts_to_json(facts)) == facts
    assert "\x00" not in facts_to_json(facts).encode().decode()


def configs(data: bytes) -> None:
    """A config may hold anything: nothing of it reaches the database that it could not store."""
    told = facts_to_json(with_config(_SOME_FACTS, data)).encode().decode()
    assert "\\u0000" not in told


def names(data: bytes) -> None:
    """An accepted name holds only what may stand in a path, and never climbs."""
    for parse in (parse_repository_name, parse_tag, parse_upload_id):
        try:
            found = parse(_text(data))
        except InvalidName:
            continue
        assert set(found.lower()) <= _NAME_CHARACTERS
        assert len(found) <= 255
        assert not {"", ".", ".."} & set(found.split("/"))
        assert parse is not parse_tag or "/" not in found


def digests(data: bytes) -> None:
    """An accepted value is written as it was read."""
    try:
        found = parse_digest(_text(data))
    except InvalidDigest:
        return
    assert str(found) == _text(data)
    assert set(found.hex) <= frozenset("0123456789abcdef")


def ranges(data: bytes) -> None:
    """Ranges lie within the blob, in order, with bytes between them."""
    try:
        found = parse_ranges(_text(data), _BLOB_BYTES) or ()
    except Unsatisfiable:
        found = ()
    assert all(0 <= each.start <= each.last < _BLOB_BYTES for each in found)
    assert all(before.last + 1 < after.start for before, after in pairwise(found))
    try:
        chunk = parse_chunk_range(_text(data))
    except InvalidChunkRange:
        return
    assert 0 <= chunk.start <= chunk.last


def queries(data: bytes) -> None:
    """A page has a limit, and the link to the next one is one line of ASCII."""
    request = Request("GET", Route(Kind.TAGS, "a"), {"QUERY_STRING": _text(data)}, "id")
    try:
        page = parse_page(request, 100)
    except WireError:
        return
    assert 0 <= page.limit <= 100
    assert page.last is None or "\x00" not in page.last
    ((_, link),) = next_link("/v2/a/tags/list", [("last", page.last or "")])
    assert link.isascii()
    assert link.isprintable()


def conditions(data: bytes) -> None:
    """Entity tags have no comma; `*` is any."""
    found = etags(_text(data))
    assert not any("," in each for each in found)
    assert not_modified(_text(data), "d") == bool(found & {"*", "d"})


def paths(data: bytes) -> None:
    """A route's parts are parts of its path, and the last one is one component."""
    path = _text(data)
    route = parse_path(path)
    if route is not None:
        assert path.startswith(f"/v2/{route.name}" if route.name else "/v2")
        assert path.endswith(route.reference)
        assert "/" not in route.reference


_SOME_FACTS = parse_manifest(
    b'{"schemaVersion":2,"config":{"digest":"sha256:' + b"a" * 64 + b'","size":2}}', OCI_MANIFEST
).facts
TARGETS: tuple[Callable[[bytes], None], ...] = (
    *(json_texts, manifests, configs, names, digests, ranges, queries, conditions, paths),
)


def one(data: bytes) -> None:
    """Give the bytes to one of the parsers: the first byte says which, the rest is its text."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def corpus() -> list[bytes]:
    """The first inputs: for each parser texts that it takes, and texts that are wrong in known ways."""
    digests_known = [each.encode() for each in (*requests.DIGESTS, *values.BAD_DIGESTS)]
    texts: dict[Callable[[bytes], None], Sequence[bytes]] = {
        json_texts: (*requests.MANIFESTS, requests.CONFIG),
        manifests: [requests.TYPE_OF[each].encode() + b"\n" + each for each in requests.MANIFESTS],
        configs: (requests.CONFIG, b'{"history":[{"created_by":"x"}],"config":{"labels":{"a":"b\\u0000"}}}'),
        names: [
            _sent(each) for each in (*requests.NAMES, *requests.TAGS, *values.BAD_NAMES, *values.BAD_TAGS, "a" * 32)
        ],
        digests: digests_known,
        ranges: [_sent(each) for each in (*values.RANGES, *values.CHUNK_RANGES)],
        queries: [b"n=%b&last=v1" % quote(each).encode() for each in values.NUMBERS] + [b"last=%00%ff", b"n=1&n=2&&;"],
        conditions: [b'"%b", W/"x", *' % each for each in digests_known],
        paths: [b"/v2/u/app/%b" % each for each in (b"tags/list", b"manifests/v1", b"blobs/uploads/x", b"referrers/d")],
    }
    return [bytes([TARGETS.index(target)]) + text for target, found in texts.items() for text in found]


def _sent(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
