"""Makes bytes that are no valid request, as a broken client or an attacker writes them."""

from collections.abc import Callable
from random import Random

from tests.abuse.fuzzing.requests import IMAGE, Sent
from tests.abuse.fuzzing.values import UNKNOWN, noise

END = b"\r\n\r\n"
GET = b"GET /v2/u/app/tags/list HTTP/1.1"
LINES = (
    b"",
    b"GET",
    b"GET /v2/",
    b"GET /v2/ HTTP/0.9",
    b"GET /v2/ HTTP/1.0",
    b"GET /v2/ HTTP/2.0",
    b"GET /v2/ HTTP/9.9",
    b"GET /v2/ http/1.1",
    b"GET  /v2/  HTTP/1.1",
    b" GET /v2/ HTTP/1.1",
    b"GET\t/v2/\tHTTP/1.1",
    b"GET v2 HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET http://elsewhere/v2/ HTTP/1.1",
    b"GET http:// HTTP/1.1",
    b"CONNECT elsewhere:443 HTTP/1.1",
    b"PRI * HTTP/2.0\r\n\r\nSM",
    b"G\x00T /v2/ HTTP/1.1",
    b"GET /v2/\x00 HTTP/1.1",
    b"GET /v2/\xff\xfe/tags/list HTTP/1.1",
    b"GET /v2/%/tags/list HTTP/1.1",
    b"GET /v2/%zz/tags/list HTTP/1.1",
    b"GET /v2/a/tags/list?n=\xff&last=\xe2\x82 HTTP/1.1",
    b"GET /v2/a/tags/list?n=1#x HTTP/1.1",
    b"GET " + b"/v2/" + b"a" * 70_000 + b" HTTP/1.1",
    b"GET /v2/" + b"a/" * 4_000 + b"tags/list HTTP/1.1",
    b"M" * 9_000 + b" /v2/ HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
HEADERS = (
    b"no colon",
    b": no name",
    b"Bad Name: x",
    b"Name : x",
    b"X: a\x00b",
    b"X: a\rb",
    b"X: a\nb",
    b"X: a\r\n folded",
    b"X: \xff\xfe\x80",
    b"\xff: x",
    b"X-Request-Id: \xe2\x82",
    b"Host: a\r\nHost: b",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 5",
    b"Content-Length: -1",
    b"Content-Length: +5",
    b"Content-Length: 0x5",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 5000000000",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding : chunked",
    b"Expect: 100-continue",
    b"Expect: nonsense",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: close, keep-alive, , \xff",
    b"X: " + b"x" * 500_000,
    b"\r\n".join(b"X%d: y" % number for number in range(200)),
    b"\r\n".join([b"X: y"] * 90),
)
CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello",
    b"5\r\nhel",
    b"5\r\nhelloo\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5;a=b\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"zz\r\nhello\r\n0\r\n\r\n",
    b"\r\n",
    b"ffffffffffffffff\r\nhello",
    b"fffffffffffffffff\r\nhello",
    b"7fffffffffffffff\r\n" + b"x" * 5_000,
    b"0" * 20_000 + b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nTrailer: x\r\nContent-Length: 9\r\n\r\n",
    b"5\r\nhello\r\n0\r\n" + b"T: x\r\n" * 2_000 + b"\r\n",
    b"1\r\nx\r\n" * 500 + b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: smuggled\r\n\r\n",
)
WRITES = (
    b"POST /v2/u/app/blobs/uploads/?digest=" + UNKNOWN.encode() + b" HTTP/1.1",
    b"PUT /v2/u/app/manifests/v1 HTTP/1.1",
    b"PATCH /v2/u/app/blobs/uploads/" + b"a" * 32 + b" HTTP/1.1",
    b"POST /v2/A/blobs/uploads/?digest=" + UNKNOWN.encode() + b" HTTP/1.1",
)


def _line(chance: Random, _: Sent) -> bytes:
    return chance.choice(LINES) + b"\r\nHost: localhost" + END


def _header(chance: Random, _: Sent) -> bytes:
    line = chance.choice((GET, *WRITES))
    return line + b"\r\nHost: localhost\r\n" + chance.choice(HEADERS) + END + chance.choice((b"", b"hello", IMAGE))


def _chunks(chance: Random, _: Sent) -> bytes:
    return chance.choice(WRITES) + b"\r\nHost: localhost\r\nTransfer-Encoding: chunked" + END + chance.choice(CHUNKS)


def _cut(chance: Random, sent: Sent) -> bytes:
    whole = sent.raw()
    return whole[: chance.randrange(len(whole))]


def _wrong_length(chance: Random, sent: Sent) -> bytes:
    body = sent.body or b"hello"
    length = len(body) + chance.choice((-1, 1, 100, 10_000))
    return Sent(sent.method, sent.target, sent.headers, body, length=str(length)).raw()


def _flipped(chance: Random, sent: Sent) -> bytes:
    whole = bytearray(sent.raw())
    for _ in range(chance.choice((1, 1, 3, 20))):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    return bytes(whole)


def _noise(chance: Random, _: Sent) -> bytes:
    return noise(chance, 3_000)


def _expecting(chance: Random, sent: Sent) -> bytes:
    headers = (*sent.headers, ("Expect", "100-continue"))
    whole = Sent(sent.method, sent.target, headers, sent.body or b"hello").raw()
    return whole if chance.random() < 0.5 else whole.partition(END)[0] + END


KINDS: tuple[Callable[[Random, Sent], bytes], ...] = (
    *(_line, _header, _chunks, _cut, _wrong_length, _flipped, _noise, _expecting),
)


def damaged(chance: Random, sent: Sent) -> bytes:
    """Bytes that look like a request with something wrong in it. Any answer below 500 is right, and so is none."""
    return chance.choice(KINDS)(chance, sent)
