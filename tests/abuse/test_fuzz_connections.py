"""Random bytes sent to a running server: pipelines, broken lines, headers and chunks, clients that go away."""

import re
from collections import Counter

import pytest

from tests.abuse.fuzzing import requests
from tests.abuse.fuzzing.memory import pss_kib
from tests.abuse.fuzzing.sockets import Client
from tests.clients.wire import Registry
from tests.races.log import events_of, log_of
from tests.servers import RunningServer, serving

SEED = 20261125
CLIENTS = 6
WARM_UP = 0.2
MEMORY_GROWTH_MAX_KIB = 48 * 1024
_BROKEN = re.compile(r"request failed|Traceback|panicked|request refused")


@pytest.mark.parametrize("requests_sent", [1_000, pytest.param(140_000, marks=pytest.mark.slow)])
def test_no_bytes_break_the_server(requests_sent: int) -> None:
    """Every answer has the protocol's shape, every connection ends, and no process dies, fails or grows.

    No refused request has an event in the log, and afterwards all is served as before.
    """
    with serving({"TAGTRAIL_WORKERS": "2"}) as server:
        registry = Registry(server.host)
        before = processes(server)
        warming = play(server, SEED, int(requests_sent * WARM_UP))
        warm = memory(server)
        clients = play(server, SEED + CLIENTS, requests_sent - int(requests_sent * WARM_UP))
        end = memory(server)
        tallies = [each.tally for each in warming + clients]
        statuses = sum((each.statuses for each in tallies), Counter())
        unreadable = sum((each.unreadable for each in tallies), Counter())
        print(
            f"seeds from {SEED}: {statuses.total()} answers {dict(sorted(statuses.items()))}, "
            f"{sum(each.damages for each in tallies)} times damaged bytes, {sum(each.connections for each in tallies)} "
            f"connections, {dict(sorted(unreadable.items()))} by the server itself, "
            f"slowest {max(each.slowest_s for each in tallies):.3f} s, PSS in KiB {warm} then {end}"
        )
        assert processes(server) == before
        assert not _BROKEN.findall(server.log.read_text())
        assert {pid: grown for pid in warm if (grown := end[pid] - warm[pid]) > MEMORY_GROWTH_MAX_KIB} == {}
        with log_of(server.database_url) as store:
            by = {each.request_id for each in events_of(store)}
        assert not by & set().union(*(each.refused for each in tallies))
        assert registry.put_manifest("u/app", "last", requests.TYPE_OF[requests.IMAGE], b"{}").status == 400
        for blob in requests.BLOBS:
            registry.put_blob("u/new", blob)
        assert registry.put_manifest("u/new", "v1", requests.TYPE_OF[requests.IMAGE], requests.IMAGE).status == 201
        assert registry.manifest("u/new", "v1").body == requests.IMAGE


def play(server: RunningServer, seed: int, count: int) -> list[Client]:
    """Let several clients play at once, to their end; fails with the first fault."""
    host, _, port = server.host.rpartition(":")
    clients = [Client((host, int(port)), seed + number, count // CLIENTS) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    faults = [each.fault for each in clients if each.fault]
    assert not faults, "\n".join(faults)
    return clients


def processes(server: RunningServer) -> dict[str, int | list[int]]:
    """The pids of the server's processes by name; a process that died would have another pid."""
    return {**server.children(), "workers": server.workers()}


def memory(server: RunningServer) -> dict[int, int]:
    """PSS of each of the server's processes but Postgres, in KiB."""
    children = server.children()
    return {pid: pss_kib(pid) for pid in (children["api"], children["projector"], *server.workers())}
