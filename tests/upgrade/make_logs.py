"""Makes the stored logs: starts the program of each schema revision, sends it requests, dumps what it stored.

    python -m tests.upgrade.make_logs [REVISION ...]

Tests do not run it: a stored log is made once, by the program of its time, and kept. Each is a gzipped dump of the
whole database, as SQL for psql, and a file with the program's answers about it.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psycopg

from tagtrail.server import embedded
from tests.upgrade.releases import Release, makers_of_logs, unpack
from tests.upgrade.traffic import Client, answers, everything
from tests.waiting import eventually

LOGS = Path(__file__).parent / "logs"
PROGRAMS = embedded._programs()
# Longer than any pause between two requests to a session, shorter than a round of the upkeep.
EXPIRY = "30s"


def make(release: Release, folder: Path) -> None:
    """Make one log: start its program, send it requests, and dump its database."""
    program = unpack(release, folder)
    data = folder / "data"
    server = program.start(
        *("serve", "--listen", "127.0.0.1:0", "--data", str(data)),
        log=folder / "log",
        TAGTRAIL_UPLOAD_EXPIRY_S=EXPIRY,
    )
    try:
        settings = eventually(lambda: _settings_of_ready(data), 120, lambda: (folder / "log").read_text())
        assert settings is not None
        client = Client(f"http://{settings['listen']}")
        everything(client)
        admin_url = settings["database"].replace("tagtrail_app@", "postgres@")
        eventually(lambda: _expired(admin_url), 240, "expired")
        _wait_level(admin_url)
        stored = LOGS / f"{release.schema}.sql.gz"
        dumped = subprocess.run([PROGRAMS / "pg_dump", admin_url], capture_output=True, check=True)
        # Without the time, so that equal logs give equal files.
        stored.write_bytes(gzip.compress(dumped.stdout, 9, mtime=0))
        found = json.dumps(dict(answers(client)), indent=0, sort_keys=True).encode()
        (LOGS / f"{release.schema}.answers.json.gz").write_bytes(gzip.compress(found, 9, mtime=0))
    finally:
        server.terminate()
        server.wait(30)


def _settings_of_ready(data: Path) -> dict[str, str] | None:
    try:
        settings: dict[str, str] = json.loads((data / "server.json").read_text())
        with urllib.request.urlopen(f"http://{settings['listen']}/readyz", timeout=5):
            return settings
    except OSError:
        return None


def _expired(admin_url: str) -> bool:
    with psycopg.connect(admin_url) as connection:
        # Programs that know a log of uploads append it there.
        apart = connection.execute("SELECT to_regclass('log.es_upload_event') IS NOT NULL").fetchone()
        table = "es_upload_event" if apart == (True,) else "es_event"
        query = f"SELECT FROM log.{table} WHERE type = 'UploadExpired'"
        return connection.execute(query.encode()).fetchone() is not None


def _wait_level(admin_url: str) -> None:
    """Wait until the projector has folded all events: rows of read models are a part of a stored log."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        head = connection.execute("SELECT max(position) FROM log.es_event").fetchone()

        def level() -> bool:
            row = connection.execute("SELECT min(position) FROM readmodel.checkpoint").fetchone()
            return row == head

        deadline = time.monotonic() + 20
        while not level() and time.monotonic() < deadline:
            time.sleep(0.2)


def main() -> None:
    """Make the logs of the revisions that were named, or of all."""
    LOGS.mkdir(exist_ok=True)
    for release in makers_of_logs():
        if len(sys.argv) > 1 and release.schema not in sys.argv[1:]:
            continue
        folder = Path(tempfile.mkdtemp(prefix="tt-log-"))
        folder.chmod(0o755)
        try:
            make(release, folder)
            print(release.schema, "made")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
