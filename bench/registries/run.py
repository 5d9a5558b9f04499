"""Measures our registry and the others that are installed in one run: `make bench`. Variables and their defaults:

    BENCH_RUNS=5 BENCH_SECONDS=5        how often each row is measured on each registry, and for how many seconds
    BENCH_ROWS=ping,blob-4k             these rows alone; without it all of rows.py
    BENCH_IMAGES=10000                  small images that each registry holds, ten a repository
    BENCH_BIG_MIB=256                   size of the large blob
    BENCH_ZOT=PATH                      the program of a zot to measure too; without it none
    BENCH_FOLDER=/var/tmp               a folder on the disk to work on
    BENCH_OUT=bench-results             the folder that the figures are written to

All registries run all the time. They are asked in turn, each one only after all have come to rest, and the median of a
row counts.
"""

import itertools
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.registries import history, limits, loading, peers, population, processes, report
from bench.registries.results import Results, RowResult, Sample
from bench.registries.rows import BYTES, STORM, Row, Start, chosen

IMAGES_PER_REPOSITORY = 10


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a run, read from the environment."""

    runs: int
    seconds: float
    rows: list[Row]
    size: population.Size
    parent: Path
    out: Path


def options_of(environment: Mapping[str, str]) -> Options:
    """Read the settings from the variables. Raises ValueError for an unknown row and for text that is no number."""
    images = int(environment.get("BENCH_IMAGES") or 10_000)
    repositories = max(1, images // IMAGES_PER_REPOSITORY)
    return Options(
        runs=int(environment.get("BENCH_RUNS") or 5),
        seconds=float(environment.get("BENCH_SECONDS") or 5),
        rows=chosen(environment.get("BENCH_ROWS", "")),
        size=population.Size(images, repositories, int(environment.get("BENCH_BIG_MIB") or 256) << 20),
        parent=Path(environment.get("BENCH_FOLDER") or "/var/tmp"),
        out=Path(environment.get("BENCH_OUT") or "bench-results"),
    )


@dataclass(slots=True)
class Bench:
    """The registries that run while they are measured."""

    options: Options
    load: Path
    folder: Path
    registries: list[peers.Peer]
    running: dict[str, peers.Running] = field(default_factory=dict)

    def start(self) -> None:
        """Give each registry its population and start it."""
        for peer in self.registries:
            kept = population.populate(peer, self.options.size, self.load, self.options.parent)
            population.copy(kept, self.folder / peer.name)
            self.running[peer.name] = peer.start(self.folder / peer.name)

    def stop(self) -> None:
        """End all registries."""
        for each in self.running.values():
            each.stop()
        self.running.clear()

    def settle(self) -> None:
        """Wait until the registries have finished earlier work and the disk has written their bytes."""
        os.sync()
        processes.wait_quiet([each.pid for each in self.running.values()])

    def restart(self, peer: peers.Peer, *, cold: bool) -> None:
        """Start a registry anew; if `cold`, its files are taken out of the page cache before."""
        self.running.pop(peer.name).stop()
        os.sync()
        if cold:
            for path in (self.folder / peer.name).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    forget(path)
        self.running[peer.name] = peer.start(self.folder / peer.name)

    def sample(self, peer: peers.Peer, row: Row, seed: int) -> Sample:
        """Measure one row of one registry once; the same seed asks for and pushes the same."""
        if row.start is not Start.RUNNING:
            self.restart(peer, cold=row.start is Start.COLD)
        self.settle()
        running = self.running[peer.name]
        flags = (*self.options.size.flags(), "-salt", f"{seed}", "-seed", f"{seed}")
        if row.before:
            loading.run(self.load, running.address, (*row.before, *flags), self.options.seconds)
            self.settle()
        before = processes.cpu_s(running.pid)
        found = loading.run(self.load, running.address, (*row.load, *flags), self.options.seconds)
        memory = processes.pss_bytes(running.pid)
        if row.writes:
            # Work that a push leaves to be done in the background is part of its cost.
            processes.wait_quiet([running.pid])
        used = processes.cpu_s(running.pid) - before
        # Only our registry has a history, so only there could something be missing from it.
        gap = (
            history.gap(running.address, f"{seed}", found.done) if row.key == STORM and peer.name == peers.OURS else ""
        )
        return Sample(
            rate=found.bytes_s / 1e9 if row.unit == BYTES else found.rate,
            p50_ms=found.p50_ms,
            p99_ms=found.p99_ms,
            errors=found.errors + bool(gap),
            cpu_s_per_1000=1000 * used / max(1, found.done),
            load_cpu_s_per_1000=1000 * found.load_cpu_s / max(1, found.done),
            pss_bytes=memory,
            first_error=found.first_error or gap,
            other_rate=found.other_rate,
        )


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # a socket, or a file that has just gone
        return
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def measure(bench: Bench, without: limits.Limits, results: Results) -> None:
    """Measure all rows of all registries, round after round; each round begins with another registry."""
    options, count = bench.options, len(bench.registries)
    results.rows = [RowResult(row.key, row.name, row.unit, row.goals, row.cpu_goals) for row in options.rows]
    rows = list(enumerate(zip(options.rows, results.rows, strict=True)))
    # Rows that start the registries anew come last: all others would have to be warmed again after them.
    for running, turn in itertools.product((True, False), range(options.runs)):
        order = bench.registries[turn % count :] + bench.registries[: turn % count]
        for number, (row, found) in rows:
            if (row.start is Start.RUNNING) is not running:
                continue
            for peer in order:
                sample = bench.sample(peer, row, turn * len(options.rows) + number)
                found.samples.setdefault(peer.name, []).append(sample)
                print(
                    f"{turn + 1}/{options.runs} {row.name}, {peer.name}: {report.number(sample.rate)} {row.unit}",
                    flush=True,
                )
            for name in row.limits:
                bench.settle()
                found.limits.setdefault(name, []).append(without.measure(name, row))


def about(options: Options, found: list[peers.Peer], durable: Mapping[str, str]) -> dict[str, str]:
    """Lines about the machine and the settings of the run, by name, for the head of the report."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": described.stdout.strip(),
        "machine": f"{os.cpu_count()} x {processor}, Linux {platform.release()}, Python {platform.python_version()}",
        "measured": f"median of {options.runs} runs of {options.seconds:g} s, interleaved; 16 clients on this machine",
        "images": f"{options.size.images:,} in {options.size.repositories:,} repositories, drawn by a Zipf law; "
        f"the large blob has {options.size.big_bytes >> 20} MiB",
        "registries": ", ".join(f"{each.name} {each.version}" for each in found),
        "our Postgres": ", ".join(f"{name} = {value}" for name, value in durable.items()),
    }


def run(options: Options) -> Results:
    """Make a whole run. Whatever happens, the registries are ended and their files removed."""
    load, found = loading.build(), peers.found_peers()
    with tempfile.TemporaryDirectory(prefix="tagtrail-bench-", dir=options.parent) as folder:
        bench = Bench(options, load, Path(folder), found)
        try:
            bench.start()
            durable = peers.durability(bench.running[peers.OURS].database_url)
            bench.settle()
            idle = {name: processes.pss_bytes(each.pid) for name, each in bench.running.items()}
            results = Results(about(options, found, durable), os.cpu_count() or 1, [each.name for each in found], idle)
            blobs = Path(folder) / peers.OURS / "data" / "blobs" / "sha256"
            without = limits.start(
                load, blobs, Path(folder), options.size.big_bytes, options.seconds, options.size.flags()
            )
            try:
                measure(bench, without, results)
            finally:
                without.stop()
        finally:
            bench.stop()
    return results


def main() -> int:
    """Make a run, print the table, write it and its JSON; answers 1 if our registry made an error."""
    # SystemExit lets `run` end the registries on the way out; the default action of SIGTERM would skip that.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        options = options_of(os.environ)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        results = run(options)
    except (loading.LoadFailed, peers.NotDurable, RuntimeError, TimeoutError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    written = report.table(results)
    print(f"\n{written}", end="")
    options.out.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    (options.out / f"{name}.json").write_text(results.to_json())
    (options.out / f"{name}.md").write_text(written)
    print(f"\n{options.out / name}.json, .md")
    return 1 if any(row.errors(peers.OURS) for row in results.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
