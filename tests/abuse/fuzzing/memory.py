"""Reads how much memory a process holds."""

import re
from pathlib import Path


def pss_kib(pid: int | str = "self") -> int:
    """The proportional set size (PSS) of a process in KiB."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
