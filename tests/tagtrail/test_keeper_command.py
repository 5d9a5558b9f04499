"""`tagtrail keeper` by itself, and `tagtrail db erase-addresses`."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from eventstore.store import Store
from tests.eventstore.making import command, event
from tests.postgres import Database
from tests.servers import scrape
from tests.waiting import eventually

END_MAX_S = 60.0
COMMAND = [sys.executable, "-m", "tagtrail"]


@contextmanager
def keeper(database: Database, data: Path, log: Path) -> Iterator[str]:
    """Run `tagtrail keeper` during the block; gives the address of its metrics. Ctrl-C ends it with status 0."""
    where = ["--database", database.app_url, "--data", str(data), "--metrics", "127.0.0.1:0"]
    with log.open("wb") as output:
        process = subprocess.Popen([*COMMAND, "keeper", *where], cwd="/", stdout=output, stderr=output)
    try:
        found = eventually(lambda: re.search(r"listen=(127\.0\.0\.1:\d+)", log.read_text()), what=log.read_text)
        assert found is not None
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(END_MAX_S) == 0
    finally:
        process.kill()
        process.wait()


def test_one_of_two_keepers_works_and_the_other_takes_over(database: Database, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def working() -> list[str]:
        with psycopg.connect(database.app_url) as connection:
            return [str(row[0]) for row in connection.execute("SELECT holder FROM feed.lease WHERE name = 'keeper/0'")]

    with keeper(database, data, tmp_path / "second.log") as second:
        eventually(lambda: scrape(second)["tagtrail_keeper_up"] == 1)
        holder = eventually(working)
        with keeper(database, data, tmp_path / "first.log") as first:
            name = 'tagtrail_keeper_last_success_timestamp_seconds{task="erase-addresses"}'
            eventually(lambda: scrape(first).get(name))
            assert working() == holder
    assert working() == []


def test_addresses_are_erased_at_once_up_to_a_moment(database: Database) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    with closing(Store(database.app_url, allow_clock_skew=True)) as store:
        for hours in range(-30, 30):
            store.append(command(event("a"), now=noon + timedelta(hours=hours), address="192.0.2.1"))

    def erase(before: str) -> str:
        asked = ["db", "erase-addresses", "--database", database.app_url, "--before", before]
        done = subprocess.run([*COMMAND, *asked], cwd="/", capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    # Midnight before the 31st, itself included; then eleven hours in the zone of the writer.
    assert erase("2026-01-31") == "The addresses of 19 commands were erased.\n"
    assert erase("2026-01-31T12:00+01:00") == "The addresses of 11 commands were erased.\n"
    assert erase("2026-01-31") == "The addresses of 0 commands were erased.\n"
    with psycopg.connect(database.app_url) as connection:
        left = connection.execute("SELECT min(recorded_at), count(*) FROM log.es_client").fetchone()
    assert left == (noon, 30)
