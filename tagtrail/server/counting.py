"""The folder with the counters of all processes of one server (prometheus-client's multiprocess mode).

The variable must be set before prometheus-client is loaded, so this module loads nothing.
"""

import shutil
from pathlib import Path

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def fresh_folder(folder: Path) -> Path:
    """An empty folder for the counters of processes that are started now."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder
