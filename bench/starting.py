"""Measures the time from `tagtrail serve` to ready with a short and a long log: `python bench/starting.py [IMAGES]`.

The long log has IMAGES images (default 1,000,000; some 11 events each, none of them chunks), the short one 1,000. Both
stand in the embedded Postgres, with read models that are level. Prints medians of several starts in turn, and the
ratio.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.population import load_all
from projections.all_models import MODELS
from projections.builds import rebuild
from projections.engine.setup import ensure_tables
from tagtrail.server import embedded
from tests import servers
from tests.postgres import Database

SHORT_IMAGES = 1_000
EVENTS_PER_IMAGE = 11
CONNECTIONS_MAX = 50
RUNS = 5


def started_s(data: Path) -> float:
    """Start a server and end it again; answers the seconds from its start until /readyz says 200."""
    began = time.perf_counter()
    server = servers.start(data)
    try:
        server.wait_ready()
        return time.perf_counter() - began
    finally:
        servers.end(server)


def filled(data: Path, images: int) -> Path:
    """Fill a data folder with the history of so many images and its read models; answers the folder."""
    started_s(data)
    postgres = embedded.EmbeddedPostgres(data, CONNECTIONS_MAX)
    postgres.prepare()
    process = postgres.start()
    try:
        postgres.wait_ready(process)
        admin, owner, app = (postgres.url(each) for each in (embedded.ADMIN, embedded.OWNER, embedded.APPLICATION))
        events = load_all(Database(embedded.DATABASE, owner, app, admin), images * EVENTS_PER_IMAGE)
        ensure_tables(app)
        rebuild.fold(app, MODELS)
        for model in MODELS:
            rebuild.rebuild(app, model)
        print(f"{images:,} images: a log of {events:,} events", flush=True)
    finally:
        process.terminate()
        process.wait()
    return data


def main() -> None:
    """Fill a short and a long folder, start a server over each in turn, print medians and the ratio."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="tt-starting-"))
    try:
        short, long = filled(folder / "short", SHORT_IMAGES), filled(folder / "long", images)
        runs = [(started_s(short), started_s(long)) for _ in range(RUNS)]
        few, many = (statistics.median(each) for each in zip(*runs, strict=True))
        print(f"start to ready: {few:.2f} s with {SHORT_IMAGES:,} images, {many:.2f} s with {images:,}")
        print(f"ratio {statistics.median(late / early for early, late in runs):.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
