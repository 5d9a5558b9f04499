"""Serves an almost empty WSGI application under granian: its speed is the limit for any registry in Python.

Called as `python -m bench.registries.bare PORT`.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from granian import Granian
from granian.constants import Interfaces

WORKERS = 2
# Of the numbers that were tried, eight threads a worker were the fastest.
THREADS = 8
# As long as the manifest of an image of one layer.
_MANIFEST = b"{" + b" " * 428 + b"}"
_DIGEST = "sha256:" + "0" * 64


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every path but /v2/ with the same bytes, and with the few headers that a registry gives."""
    ping = environ["PATH_INFO"] == "/v2/"
    body = b"{}" if ping else _MANIFEST
    headers = [
        ("Content-Type", "application/json" if ping else "application/vnd.oci.image.manifest.v1+json"),
        ("Content-Length", str(len(body))),
        ("Docker-Content-Digest", _DIGEST),
        ("Docker-Distribution-API-Version", "registry/2.0"),
    ]
    start_response("200 OK", headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


if __name__ == "__main__":
    Granian(
        "bench.registries.bare:application",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.WSGI,
        workers=WORKERS,
        blocking_threads=THREADS,
    ).serve()
