"""Clients of several languages that send bodies which are refused, each followed by an innocent request."""

import hashlib
import http.client
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from threading import local

import requests

from tests.clients.programs import missing, tools

SOURCE = Path(__file__).parent
# The closing PUT of a session that does not exist: a request that is refused and that every client can send.
PATH = f"/v2/abuse/none/blobs/uploads/{'a' * 40}?digest=sha256:{'a' * 64}"
REFUSED = (404, "BLOB_UPLOAD_UNKNOWN")
INNOCENT = (405, "UNSUPPORTED")
# Far longer than a client takes, also on a busy machine.
RUN_S = 1800.0


@dataclass(frozen=True, slots=True)
class Round:
    """So many uploads of one size by one client, so many of them at once, in chunks or with a length."""

    size: int
    count: int
    at_once: int = 4
    chunked: bool = False

    @property
    def encoding(self) -> str:
        """The word by which the client programs take it."""
        return "chunked" if self.chunked else "length"


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of uploads that were answered or lost and of innocent requests that failed; the first problem."""

    answered: int
    lost: int
    harmed: int
    first: str

    def __add__(self, other: "Found") -> "Found":
        return Found(
            self.answered + other.answered,
            self.lost + other.lost,
            self.harmed + other.harmed,
            self.first or other.first,
        )


Uploads = Callable[[str, Round], Found]


def go(host: str, given: Round) -> Found:
    """net/http of Go."""
    return _run([str(_go_program()), *_arguments(host, given)])


def java_client(host: str, given: Round) -> Found:
    """java.net.http.HttpClient."""
    return _run([_tool("java"), "-cp", str(_java_classes()), "Uploads", *_arguments(host, given), "client"])


def java_connection(host: str, given: Round) -> Found:
    """java.net.HttpURLConnection, which many older programs use."""
    return _run([_tool("java"), "-cp", str(_java_classes()), "Uploads", *_arguments(host, given), "connection"])


def curl(host: str, given: Round) -> Found:
    """The program curl, one process for each upload; the innocent request is the second one of the process."""
    program = _tool("curl")
    with tempfile.NamedTemporaryFile() as body:
        body.truncate(given.size)
        how = ["-H", "Transfer-Encoding: chunked"] if given.chunked else []
        command = [program, "-sS", "-m", "120", "-T", body.name, *how, "-w", "\n%{http_code}\n", f"http://{host}{PATH}"]
        command += ["--next", "-sS", "-m", "120", "-X", "POST", "-w", "\n%{http_code}\n", f"http://{host}/v2/"]

        def one(_: int) -> Found:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.splitlines() + [""] * 4
            answers = [_judged(lines[1], lines[0], *REFUSED), _judged(lines[3], lines[2], *INNOCENT)]
            failed = f"curl: {done.returncode} {done.stderr}" if done.returncode else ""
            return _found(failed or answers[0], answers[1])

        return _together(one, given)


def python_requests(host: str, given: Round) -> Found:
    """The package requests, on urllib3."""
    kept = local()
    made = ExitStack()

    def one(_: int) -> Found:
        session: requests.Session = kept.__dict__.get("session") or made.enter_context(requests.Session())
        kept.session = session
        body = bytes(given.size)

        def ask(method: str, path: str, data: object, expected: tuple[int, str]) -> str:
            try:
                answer = session.request(method, f"http://{host}{path}", data=data, timeout=120)  # type: ignore[arg-type]
            except requests.RequestException as problem:
                return repr(problem)
            return _judged(str(answer.status_code), answer.text, *expected)

        sent = iter([body]) if given.chunked else body
        return _found(ask("PUT", PATH, sent, REFUSED), ask("POST", "/v2/", None, INNOCENT))

    with made:
        return _together(one, given)


def python_http(host: str, given: Round) -> Found:
    """Python's http.client, which sends the whole body before it listens."""
    kept = local()
    made = ExitStack()

    def connect() -> http.client.HTTPConnection:
        return made.enter_context(closing(http.client.HTTPConnection(host, timeout=120)))

    def one(_: int) -> Found:
        connection: http.client.HTTPConnection = kept.__dict__.get("connection") or connect()
        kept.connection = connection
        body = bytes(given.size)

        def ask(method: str, path: str, data: object, expected: tuple[int, str]) -> str:
            try:
                connection.request(method, path, body=data)  # type: ignore[arg-type]
                answer = connection.getresponse()
                return _judged(str(answer.status), answer.read().decode(), *expected)
            except (OSError, http.client.HTTPException) as problem:
                connection.close()
                return repr(problem)

        sent = iter([body]) if given.chunked else body
        return _found(ask("PUT", PATH, sent, REFUSED), ask("POST", "/v2/", None, INNOCENT))

    with made:
        return _together(one, given)


CLIENTS: dict[str, Uploads] = {
    "go": go,
    "curl": curl,
    "requests": python_requests,
    "http.client": python_http,
    "java.net.http": java_client,
    "HttpURLConnection": java_connection,
}


def _arguments(host: str, given: Round) -> list[str]:
    return [host, str(given.size), str(given.count), str(given.at_once), given.encoding, PATH]


def _run(command: list[str]) -> Found:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_S)
    assert done.returncode == 0, done.stderr
    return Found(**json.loads(done.stdout))


def _together(one: Callable[[int], Found], given: Round) -> Found:
    with ThreadPoolExecutor(given.at_once) as pool:
        return sum(pool.map(one, range(given.count)), Found(0, 0, 0, ""))


def _found(loss: str, harm: str) -> Found:
    return Found(int(not loss), int(bool(loss)), int(bool(harm)), loss or (harm and f"innocent: {harm}"))


def _judged(status: str, text: str, expected: int, code: str) -> str:
    return "" if status == str(expected) and f'"{code}"' in text else f"{status} {text}"


def _tool(name: str) -> str:
    found = tools.find_program(name)
    if found is None:
        missing(f"{name} is absent")
    return str(found)


def _go_program() -> Path:
    """The program of this source, built once."""
    compiler = _tool("go")
    return _built("go", [SOURCE / "main.go", SOURCE / "go.mod"], lambda made: [compiler, "build", "-o", str(made), "."])


def _java_classes() -> Path:
    """The folder with the classes of this source, compiled once."""
    compiler = _tool("javac")
    source = SOURCE / "Uploads.java"
    return _built("java", [source], lambda made: [compiler, "-d", str(made), str(source)])


def _built(name: str, sources: list[Path], command: Callable[[Path], list[str]]) -> Path:
    version = hashlib.sha256(b"\0".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    with tools.locked(f"uploads-{name}"):
        made: Path = tools.cache_folder() / f"uploads-{name}-{version}"
        if not made.exists():
            fresh = made.with_name(f"{made.name}-{os.getpid()}")
            done = subprocess.run(command(fresh), cwd=SOURCE, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            fresh.rename(made)
        return made
