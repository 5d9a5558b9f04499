"""Draws requests over every route, method, header and parameter at random from a seed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from urllib.parse import quote

from domain.digests import digest_of
from tests.abuse.fuzzing import values
from tests.abuse.fuzzing.documents import nearly_right
from tests.abuse.fuzzing.values import noise, one_of, spoil
from tests.api import CONFIG_TYPE, image, index, sha256

SESSIONS_MAX = 40
CONFIG = b'{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"b"}}}'
LAYERS = (b"", b"layer", bytes(range(256)) * 40)
IMAGE = image(CONFIG, *LAYERS)
SIGNATURE = image(CONFIG, subject={"mediaType": values.TYPES[0], "digest": sha256(IMAGE), "size": len(IMAGE)})
INDEX = index(IMAGE, annotations={"k": "v"})
MANIFESTS = (IMAGE, SIGNATURE, INDEX)
BLOBS = (CONFIG, *LAYERS)
TYPE_OF = {IMAGE: values.TYPES[0], SIGNATURE: values.TYPES[0], INDEX: values.TYPES[1]}
KNOWN = ("u/app", "other")
NAMES = (*KNOWN, "a", "u/blobs/uploads", "a__b/c--d")
TAGS = ("v1", "v2", "_x", "sha256-" + "a" * 64 + ".sig", "A.b-c", "t" * 128)
DIGESTS = (
    *(sha256(each) for each in (*MANIFESTS, *BLOBS)),
    str(digest_of("sha512", b"layer")),
    values.UNKNOWN,
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "X-Y")
PARAMETERS = (
    *("digest", "mount", "from", "digest-algorithm", "tag", "n", "last", "artifactType"),
    *("before", "after", "ns", "N", "", "account"),
)
HEADERS = (
    *("Content-Type", "Content-Range", "Range", "If-Match", "If-None-Match", "Accept", "X-Request-Id"),
    *("User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "Authorization", "Accept-Encoding", "Cookie", "Origin"),
    *("If-Range", "If-Modified-Since", "Content-Encoding", "Content-MD5", "X-HTTP-Method-Override", "Referer"),
)
BAD_IDS = (
    "",
    "short",
    "A" * 32,
    "a" * 65,
    "../" + "a" * 30,
    "a" * 40 + "\n",
    f"1-00000001-{'f' * 12}-0-{'a' * 32}-{'A' * 43}",
)
_NOT_IN_A_HEADER = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. `length` is the Content-Length if another than the right one is claimed."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunked: bool = False
    length: str | None = None

    def raw(self) -> bytes:
        """Its bytes on a connection. A character that Latin-1 lacks, which no client could send, is escaped."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", *(f"{n}: {v}" for n, v in self.headers)]
        body = self.body
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        elif self.body or self.length is not None or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body) if self.length is None else self.length}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "backslashreplace") + body

    @property
    def brings_bytes(self) -> bool:
        """True if a server that believes its Content-Length reads a body; an empty length is none."""
        return bool(self.body) and (self.chunked or self.length not in ("0", ""))

    def __str__(self) -> str:
        shown = self.raw()
        return f"{shown[:3000]!r}{f' and {len(shown) - 3000} bytes more' if len(shown) > 3000 else ''}"


@dataclass(slots=True)
class World:
    """The open sessions, as answers told of them, which requests may name."""

    sessions: dict[str, int] = field(default_factory=dict)
    repositories: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)

    def learn(self, sent: Sent, status: int, headers: Mapping[str, str]) -> None:
        """Learn of sessions and blobs from an answer."""
        location = headers.get("location", "")
        if status == 202 and "docker-upload-uuid" in headers:
            upload = headers["docker-upload-uuid"]
            # A Range of 0-0 stands for no byte and for one byte; after an empty chunk it is what it was before.
            stood = 1 if sent.method == "PATCH" and sent.brings_bytes else self.sessions.get(upload, 0)
            self.sessions[upload] = stood if headers["range"] == "0-0" else int(headers["range"][2:]) + 1
            self.repositories[upload] = location.removeprefix("/v2/").rpartition("/blobs/uploads/")[0]
        elif status == 201 and "/blobs/" in location:
            self.blobs.add(headers["docker-content-digest"])
            self._forget(sent.target)
        elif status == 204 and sent.method == "DELETE":
            self._forget(sent.target)

    def _forget(self, target: str) -> None:
        upload = target.partition("?")[0].rpartition("/")[2]
        self.sessions.pop(upload, None)
        self.repositories.pop(upload, None)


def _altered(name: str) -> str:
    """The id of a session with its last character changed."""
    return name[:-1] + ("A" if name[-1] != "A" else "B")


class Requests:
    """Draws requests. With `lies`, some claim another length than their body has."""

    def __init__(self, chance: Random, world: World, *, lies: bool) -> None:
        self._chance = chance
        self._world = world
        self._lies = lies
        self._kinds = (
            (self._session, 18),
            (self._start, 8),
            (self._manifest, 26),
            (self._blob, 16),
            (self._list, 12),
            (self._api, 8),
            (self._elsewhere, 8),
            (self._base, 4),
        )

    def draw(self) -> Sent:
        """The next request."""
        chance = self._chance
        if len(self._world.sessions) > SESSIONS_MAX:
            upload = next(iter(self._world.sessions))
            return Sent("DELETE", f"/v2/{self._world.repositories[upload]}/blobs/uploads/{upload}")
        (kind,) = chance.choices([each for each, _ in self._kinds], [weight for _, weight in self._kinds])
        return kind()

    def _session(self) -> Sent:
        chance, world = self._chance, self._world
        if not world.sessions or chance.random() < 0.3:
            upload = one_of(chance, ("a" * 40, *map(_altered, world.sessions)), BAD_IDS)
            return self._made(self._method("PATCH", "PUT", "GET", "DELETE"), self._path("blobs/uploads", upload))
        upload = chance.choice(list(world.sessions))
        at, name = world.sessions[upload], world.repositories[upload]
        if chance.random() < 0.2:
            name = self._name()
        method = self._method("PATCH", "PATCH", "PUT", "PUT", "GET", "DELETE")
        body = self._body()
        query = []
        if method == "PUT" and chance.random() < 0.8:
            query.append(("digest", sha256(body) if at == 0 and chance.random() < 0.4 else self._digest()))
        headers = []
        if method in ("PATCH", "PUT") and chance.random() < 0.5:
            right = f"{at}-{at + len(body) - 1}"
            headers.append(("Content-Range", one_of(chance, (right,), values.CHUNK_RANGES)))
        return self._made(method, f"/v2/{_quoted(name)}/blobs/uploads/{upload}", query, headers, body)

    def _start(self) -> Sent:
        chance = self._chance
        body, query = b"", []
        match chance.randrange(6):
            case 0:
                body, digest = values.fresh_blob(chance) if chance.random() < 0.1 else (b"layer", sha256(b"layer"))
                query.append(("digest", digest))
            case 1:
                body = self._body()
                query.append(("digest", self._digest()))
            case 2:
                query += [("mount", self._digest()), ("from", self._name())]
            case 3:
                query.append(("digest-algorithm", one_of(chance, ("sha256", "sha512"), ("md5", "", "SHA256", "\x00"))))
            case 4:
                query = self._parameters()
            case _:
                pass
        slash = chance.choice(("", "/", "/", "/", "//"))
        return self._made(self._method("POST"), f"/v2/{_quoted(self._name())}/blobs/uploads{slash}", query, body=body)

    def _manifest(self) -> Sent:
        chance = self._chance
        if chance.random() < 0.4:
            return self._made(self._method("GET", "HEAD", "DELETE"), self._path("manifests", self._reference()))
        body = chance.choice(MANIFESTS)
        headers = [("Content-Type", TYPE_OF[body] if chance.random() < 0.8 else chance.choice(values.TYPES))]
        if chance.random() < 0.85:
            body = nearly_right(chance, body)
        reference = sha256(body) if chance.random() < 0.2 else self._reference()
        query = [("tag", self._tag()) for _ in range(chance.choice((0, 0, 0, 1, 3, 101)))]
        return self._made(self._method("PUT"), self._path("manifests", reference), query, headers, body)

    def _blob(self) -> Sent:
        chance = self._chance
        headers = [("Range", one_of(chance, values.RANGES[:3], values.RANGES))] if chance.random() < 0.5 else []
        return self._made(
            self._method("GET", "HEAD", "GET", "HEAD", "DELETE"), self._path("blobs", self._digest()), headers=headers
        )

    def _list(self) -> Sent:
        chance = self._chance
        path = chance.choice(
            (
                partial(self._path, "tags", "list"),
                partial(self._path, "referrers", self._digest()),
                partial(self._path, "_oci/ext", "discover"),
                lambda: "/v2/_catalog",
                lambda: "/v2/_oci/ext/discover",
            )
        )()
        query = []
        if chance.random() < 0.5:
            name = chance.choice(("n", "last", "artifactType"))
            odd = ("\x00", chance.choice(values.ODD), chance.choice(values.NUMBERS))
            query.append((name, chance.choice((*odd, self._tag(), CONFIG_TYPE))))
        return self._made(self._method("GET", "HEAD"), path, query)

    def _api(self) -> Sent:
        if self._chance.random() < 0.5:
            path = f"/api/v1/repositories/{_quoted(self._name())}/history"
        else:
            path = f"/api/v1/blobs/{_quoted(self._digest())}/references"
        return self._made(self._method("GET", "HEAD"), path)

    def _elsewhere(self) -> Sent:
        chance = self._chance
        path = one_of(
            chance, ("/v2/u/app/tags/list", "/api/v1/", "/v2/u"), ("/", "/v1/", "/v2//", "/v2/u/app", "/../..")
        )
        if chance.random() < 0.3:
            path += "/" + noise(chance).decode("latin-1")
        return self._made(self._method("GET", "POST"), "/" + _quoted(path).lstrip("/"))

    def _base(self) -> Sent:
        # The counts for /metrics take milliseconds, so this is rare.
        path = self._chance.choices(("/v2/", "/v2", "/healthz", "/readyz", "/metrics"), (20, 5, 5, 5, 1))[0]
        return self._made(self._method("GET", "HEAD"), path)

    def _made(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]] | None = None,
        headers: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
    ) -> Sent:
        """The request, with more parameters and headers, and with a body where none is due."""
        chance = self._chance
        query, headers = query or [], headers or []
        if chance.random() < 0.25:
            query = query + self._parameters()
        if chance.random() < 0.4:
            headers = headers + [self._header() for _ in range(chance.choice((1, 1, 2, 8)))]
        if body is None:
            body = self._body() if chance.random() < (0.4 if method in ("PUT", "PATCH", "POST") else 0.03) else b""
        text = "&".join(f"{quote(name)}={_quoted(value)}" for name, value in query)
        if chance.random() < 0.02:
            text += chance.choice(("&", "=", "&&&", "%", "%zz", "%ff%fe", "a&b", "&" * 2000, ";a=b"))
        length = chance.choice(values.LENGTHS) if self._lies and chance.random() < 0.03 else None
        made = tuple((name, _NOT_IN_A_HEADER.sub("?", value).strip(" \t")) for name, value in headers)
        return Sent(method, f"{path}?{text}" if text else path, made, body, chance.random() < 0.2, length)

    def _method(self, *usual: str) -> str:
        return self._chance.choice(usual if self._chance.random() < 0.93 else METHODS)

    def _path(self, kind: str, reference: str) -> str:
        return f"/v2/{_quoted(self._name())}/{kind}/{_quoted(reference)}"

    def _name(self) -> str:
        known = KNOWN if self._chance.random() < 0.8 else NAMES
        return one_of(self._chance, known * 2, values.BAD_NAMES)

    def _tag(self) -> str:
        return one_of(self._chance, TAGS, values.BAD_TAGS)

    def _digest(self) -> str:
        return one_of(self._chance, DIGESTS, values.BAD_DIGESTS)

    def _reference(self) -> str:
        return self._tag() if self._chance.random() < 0.5 else self._digest()

    def _body(self) -> bytes:
        chance = self._chance
        match chance.randrange(6):
            case 0:
                return b""
            case 1:
                return chance.choice(BLOBS)
            case 2:
                return nearly_right(chance, chance.choice(MANIFESTS))
            case 3:
                return noise(chance, 2000)
            case 4:
                return chance.choice(MANIFESTS)
            case _:
                return b"digest=" + values.UNKNOWN.encode()

    def _parameters(self) -> list[tuple[str, str]]:
        chance = self._chance
        return [self._parameter() for _ in range(chance.choices((1, 2, 5, 1100), (60, 30, 9, 0.2))[0])]

    def _parameter(self) -> tuple[str, str]:
        chance = self._chance
        name = chance.choice(PARAMETERS)
        draw = chance.random()
        if draw < 0.5:
            match name:
                case "n" | "before":
                    return name, chance.choice(values.NUMBERS)
                case "digest" | "mount":
                    return name, self._digest()
                case "from":
                    return name, self._name()
                case "artifactType":
                    return name, chance.choice((CONFIG_TYPE, *values.TYPES))
                case _:
                    return name, self._reference()
        if draw < 0.8:
            return name, spoil(chance, self._reference())
        return name, noise(chance).decode("latin-1")

    def _header(self) -> tuple[str, str]:
        chance = self._chance
        name = chance.choice(HEADERS)
        if name == "X-Request-Id":
            # Each request has an id of its own, so that an event can be traced back to its request.
            return name, f"{chance.getrandbits(128):x}" + chance.choice(("", "", " ", "\xe4", "x" * 40))
        draw = chance.random()
        if draw < 0.6:
            match name:
                case "Content-Type" | "Accept":
                    return name, chance.choice(values.TYPES)
                case "Content-Range":
                    return name, chance.choice(values.CHUNK_RANGES)
                case "Range":
                    return name, chance.choice(values.RANGES)
                case "If-Match" | "If-None-Match":
                    return name, chance.choice(
                        ("*", '"*"', f'"{self._digest()}"', f'W/"{self._digest()}", x', '"', ",")
                    )
                case _:
                    return name, self._reference()
        if draw < 0.8:
            return name, "x" * chance.choice((0, 1, 300, 5000))
        return name, noise(chance).decode("latin-1") + "\xe4"


def _quoted(text: str) -> str:
    return quote(text, safe="/:@.-_", errors="surrogatepass")
