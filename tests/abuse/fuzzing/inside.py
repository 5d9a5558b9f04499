"""Sends random requests to the WSGI application in its own process, over a real Postgres and real files.

`python -m tests.abuse.fuzzing.inside DATABASE_URL FOLDER SEED REQUESTS` prints a report as JSON. A fault ends it with a
message that tells how to see the fault again.
"""

import faulthandler
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote_to_bytes

from eventstore.types import HISTORY, UPLOADS
from tests.abuse.fuzzing import requests
from tests.abuse.fuzzing.memory import pss_kib
from tests.abuse.fuzzing.oracle import fault_of
from tests.abuse.fuzzing.requests import Requests, Sent, World
from tests.api import Registry, registry_over
from tests.clients.wire import Answer
from tests.postgres import Database
from tests.sessions import upload_of

# Measured in the thread's own processor time, so that other work of the machine does not count.
WORK_MAX_S = 1.0
HANG_S = 120.0
BATCH_REQUESTS = 250
# After so many requests the read models are brought up to date: they lag in between, but tails do not grow for ever.
PROJECT_EVERY = 2_000
STOCK_EVERY = 500
TELL_EVERY = 10_000
WARM_UP = 0.2


@dataclass(slots=True)
class Report:
    """The result of a run; memory is of the whole process (PSS), after a fifth of the requests and at the end."""

    seed: int
    requests: int
    seconds: float
    statuses: dict[str, int]
    events: int
    slowest_s: float
    warm_kib: int
    end_kib: int


class Fault(AssertionError):
    """A broken rule; the message tells how to see it again."""


def ask(registry: Registry, sent: Sent) -> Answer:
    """One request to the application, as the server would hand it over; repeated headers of its answer are joined."""
    path, _, query = sent.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "5000",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in sent.headers:
        key = "CONTENT_TYPE" if name == "Content-Type" else "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if sent.chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    elif sent.length is not None or sent.body:
        environ["CONTENT_LENGTH"] = str(len(sent.body)) if sent.length is None else sent.length
    started: list[tuple[str, list[tuple[str, str]]]] = []
    blocks: Iterable[bytes] = registry.application(environ, lambda status, headers: started.append((status, headers)))
    body = b"".join(blocks)
    getattr(blocks, "close", lambda: None)()
    status, listed = started[0]
    headers: dict[str, str] = {}
    for name, value in listed:
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(int(status[:3]), headers, body)


class Player:
    """Sends requests and judges answers one by one, log and files batch by batch."""

    def __init__(self, registry: Registry, seed: int) -> None:
        self._registry = registry
        self._seed = seed
        self._parent = os.getppid()
        self._world = World()
        self._requests = Requests(Random(seed), self._world, lies=True)
        self._positions = {HISTORY: 0, UPLOADS: 0}
        self._number = 0
        self._refused: dict[str, Sent] = {}
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self.events = 0

    def _stock(self) -> None:
        """Push what the requests name, and what some of them have deleted."""
        for name in requests.KNOWN:
            for blob in requests.BLOBS:
                self._world.blobs.add(self._registry.blob(name, blob))
            for body in requests.MANIFESTS:
                answer = self._registry.manifest(name, requests.TAGS[0], body, requests.TYPE_OF[body])
                assert answer.status_code == 201, answer.data

    def play(self, count: int) -> None:
        """Send so many requests."""
        for number in range(count):
            if number % BATCH_REQUESTS == 0:
                if os.getppid() != self._parent:
                    raise SystemExit("whoever started this run has ended")
                faulthandler.dump_traceback_later(HANG_S, exit=True)
                self._judge_batch()
            if number % STOCK_EVERY == 0:
                self._stock()
            if number % PROJECT_EVERY == 0:
                self._registry.project()
            if number % TELL_EVERY == 0:
                print(self._seed, self._number, dict(self.statuses), f"{pss_kib()} KiB", file=sys.stderr, flush=True)
            self._one(self._requests.draw())
        self._judge_batch()
        faulthandler.cancel_dump_traceback_later()

    def _one(self, sent: Sent) -> None:
        self._number += 1
        started, worked = time.monotonic(), time.thread_time()
        try:
            got = ask(self._registry, sent)
            fault = fault_of(sent.method, got.status, got.headers, got.body)
        except Exception as problem:
            raise self._fault(f"{type(problem).__name__}: {problem}", sent) from problem
        worked = time.thread_time() - worked
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        if fault is None and worked > WORK_MAX_S:
            fault = f"took {worked:.1f} s of work"
        if fault is not None:
            raise self._fault(fault, sent)
        self.statuses[got.status] += 1
        if got.status >= 400:
            self._refused[got.headers["x-request-id"]] = sent
        self._world.learn(sent, got.status, got.headers)

    def _judge_batch(self) -> None:
        """Check that no refused request has an event, and that the files are those that the answers told of."""
        for log in (HISTORY, UPLOADS):
            for event in self._registry.rooms.store.read_log(self._positions[log], 100 * BATCH_REQUESTS, log=log):
                self._positions[log] = event.position
                self.events += 1
                if event.request_id in self._refused:
                    raise self._fault(f"refused, but appended {event.type}", self._refused[event.request_id])
        if len(self._world.sessions) > requests.SESSIONS_MAX + BATCH_REQUESTS // 2:
            raise self._fault(f"{len(self._world.sessions)} sessions that cannot be cancelled", *self._refused.values())
        data = self._registry.rooms.settings.data
        # Sizes are compared by the last byte that Range shows, where 0-0 stands for no byte and for one.
        staged = {each.name: max(each.stat().st_size, 1) for each in (data / "uploads").iterdir()}
        answered = {upload_of(name): size for name, size in self._world.sessions.items() if size > 0}
        if staged != answered:
            differing = sorted(staged.items() ^ answered.items())
            raise self._fault(f"uploads/ differs from what was answered: {differing}", *self._refused.values())
        files = {f"{each.parts[-3]}:{each.name.partition('.')[0]}" for each in (data / "blobs").glob("*/*/*.*")}
        if not files <= self._world.blobs:
            unknown = sorted(files - self._world.blobs)
            raise self._fault(f"blobs/ holds what no answer told of: {unknown}", *self._refused.values())
        self._refused.clear()

    def _fault(self, what: str, *sent: Sent) -> Fault:
        lines = [f"seed {self._seed}, request {self._number}: {what}", *map(str, sent[:BATCH_REQUESTS])]
        if len(sent) == 1:
            lines.append(f"smallest that does the same by itself: {self._shrunk(sent[0])}")
        return Fault("\n".join(lines))

    def _shrunk(self, sent: Sent) -> Sent | None:
        """The smallest request with the same fault; None if the request alone does not show it again."""
        verdict = self._verdict(sent)
        if verdict is None:
            return None
        while smaller := next((each for each in _smaller(sent) if self._verdict(each) == verdict), None):
            sent = smaller
        return sent

    def _verdict(self, sent: Sent) -> str | None:
        verdict: str | None = "raises"
        with suppress(Exception):
            got = ask(self._registry, sent)
            verdict = fault_of(sent.method, got.status, got.headers, got.body)
        return verdict


def _smaller(sent: Sent) -> Iterable[Sent]:
    path, _, query = sent.target.partition("?")
    parameters = query.split("&") if query else []
    for at in range(len(parameters)):
        left = "&".join(parameters[:at] + parameters[at + 1 :])
        yield replace(sent, target=f"{path}?{left}" if left else path)
    for at in range(len(sent.headers)):
        yield replace(sent, headers=sent.headers[:at] + sent.headers[at + 1 :])
    if sent.body:
        half = len(sent.body) // 2
        yield from (replace(sent, body=each) for each in (b"", sent.body[:half], sent.body[half:]) if each != sent.body)


def run(database_url: str, folder: Path, seed: int, count: int) -> Report:
    """Prepare a registry, warm up, play; raises Fault."""
    with registry_over(Database("", "", database_url, ""), folder) as registry:
        player = Player(registry, seed)
        started = time.monotonic()
        player.play(int(count * WARM_UP))
        warm = pss_kib()
        player.play(count - int(count * WARM_UP))
        return Report(
            seed,
            sum(player.statuses.values()),
            round(time.monotonic() - started, 1),
            {str(status): number for status, number in sorted(player.statuses.items())},
            player.events,
            round(player.slowest_s, 3),
            warm,
            pss_kib(),
        )


if __name__ == "__main__":
    url, data, seed_text, count_text = sys.argv[1:]
    print(json.dumps(asdict(run(url, Path(data), int(seed_text), int(count_text)))))
