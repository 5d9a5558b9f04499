"""Gives every registry the images that it holds before it is measured.

They are pushed once, kept in the cache beside the tools, and copied for each run.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.registries import loading, processes
from bench.registries.peers import OURS, Peer
from scripts.tools import cache_folder, locked
from tests.servers import scrape
from tests.waiting import eventually

# To be raised when the load program pushes other images than before: stored populations are then made anew.
VERSION = 1
TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Size:
    """The numbers of small images and repositories, and the size of the large blob."""

    images: int = 10_000
    repositories: int = 1_000
    big_bytes: int = 256 << 20

    def flags(self) -> tuple[str, ...]:
        """The flags that tell the load program these numbers."""
        return (
            *("-images", str(self.images), "-repositories", str(self.repositories)),
            *("-bytes", str(self.big_bytes)),
        )


def stored(peer: Peer, size: Size) -> Path:
    """The folder in the cache for the population of this size of exactly this registry; it may not exist yet."""
    what = f"{size.images}x{size.repositories}x{size.big_bytes}-{VERSION}"
    return cache_folder() / f"bench-population-{peer.name}-{peer.version}-{what}"


def populate(peer: Peer, size: Size, load: Path, parent: Path) -> Path:
    """Make the stored population of a registry unless it is there; answers its folder.

    The registry that is filled runs in a new folder within `parent`.
    """
    kept = stored(peer, size)
    with locked(f"bench-population-{peer.name}"):
        if kept.exists():
            return kept
        print(f"pushing {size.images:,} images to {peer.name} (once) ...", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"populate-{peer.name}-", dir=parent) as folder:
            running = peer.start(Path(folder))
            try:
                found = loading.run(load, running.address, ("populate", *size.flags()), TIMEOUT_S)
                if found.errors:
                    raise loading.LoadFailed(f"{peer.name}: {found.errors} errors: {found.first_error}")
                if peer.name == OURS:
                    eventually(lambda: projected(running.address), TIMEOUT_S)
                processes.wait_quiet([running.pid])
            finally:
                running.stop()
            print(f"  in {found.seconds:.0f} s", flush=True)
            incomplete = kept.with_name(kept.name + ".part")
            shutil.rmtree(incomplete, ignore_errors=True)
            copy(Path(folder), incomplete)
            incomplete.rename(kept)
    return kept


def projected(address: str) -> bool:
    """True if all read models are level with the log."""
    return not any(
        value for name, value in scrape(address).items() if name.startswith("tagtrail_projection_lag_events")
    )


def copy(source: Path, target: Path) -> None:
    """Copy a folder with the owners and times of its files."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)
