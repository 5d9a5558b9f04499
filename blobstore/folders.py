"""Folders whose entries survive a loss of power."""

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a private folder and its parents; the entry of each one that was missing is durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    flush_folder(folder.parent)


def make_subfolder(folder: Path) -> None:
    """Make a private folder within an existing one and make its entry durable, also if the folder is there already.

    An earlier start may have been killed between making the folder and flushing its entry.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    flush_folder(folder.parent)


def flush_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
