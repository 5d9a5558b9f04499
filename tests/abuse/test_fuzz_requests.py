"""Requests over every route, method, header and parameter, at random: no 5xx, no hang, nothing leaked or changed."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import Server, drop_database, new_database

SEED = 20261125
PROJECT = Path(__file__).parents[2]
MEMORY_GROWTH_MAX_KIB = 48 * 1024
UNKNOWN_MAX = 0.6
TOLD_CHARACTERS = 400_000


@pytest.mark.parametrize(
    ("seed", "processes", "requests"),
    [
        (SEED, 2, 2_000),
        # Two parts, because each may take twenty minutes of two slow processors.
        pytest.param(SEED, 4, 430_000, marks=pytest.mark.slow, id="first_half"),
        pytest.param(SEED + 100, 4, 430_000, marks=pytest.mark.slow, id="second_half"),
    ],
)
def test_no_request_breaks_the_application(
    postgres_server: Server, tmp_path: Path, seed: int, processes: int, requests: int
) -> None:
    """Each process asks a registry of its own. No answer is a 5xx, errors have the protocol's shape, nothing hangs.

    A refused request appends no event and leaves no file, and memory does not grow after the warm-up.
    """
    databases = [new_database(postgres_server) for _ in range(processes)]
    players = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.abuse.fuzzing.inside", database.app_url, tmp_path / str(number)),
                *(str(seed + number), str(requests // processes)),
            ],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, database in enumerate(databases)
    ]
    try:
        ended = [(each, *each.communicate()) for each in players]
    finally:
        for each in players:
            each.kill()
            each.communicate()
        for database in databases:
            drop_database(postgres_server, database)
    broken = [errors for player, _, errors in ended if player.returncode]
    for errors in broken:
        print(errors[-TOLD_CHARACTERS:])
    assert not broken, "the fault is printed above"
    reports: list[dict[str, Any]] = [json.loads(told) for _, told, _ in ended]
    for report in reports:
        print(json.dumps(report))
        assert report["end_kib"] - report["warm_kib"] < MEMORY_GROWTH_MAX_KIB
    statuses = sum((Counter(each["statuses"]) for each in reports), Counter())
    print(f"{statuses.total()} requests, {dict(sorted(statuses.items()))}")
    # Requests that are all refused at once would find nothing, so every kind of answer must have come.
    assert {"200", "201", "202", "204", "206", "400", "404", "405", "416"} <= set(statuses)
    assert statuses["404"] < statuses.total() * UNKNOWN_MAX
