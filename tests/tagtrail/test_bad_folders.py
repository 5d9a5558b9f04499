"""`tagtrail serve` on a data folder that it cannot use ends with a message that says what to do, never a trace."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import missing
from tests.tagtrail.test_cli import run
from tests.test_disk_full import fill, small_disk

pytestmark = pytest.mark.xdist_group("bad_folders")


NO_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def refusal(data: Path, *before: str) -> str:
    """Run `serve` with an appender, perhaps by another program; answers its words. Fails unless its status is 1."""
    ran = run("serve", "--listen", "127.0.0.1:0", "--data", data, "--appender", before=before)
    assert ran.status == 1, ran
    return ran.err


def test_a_file_in_place_of_the_folder_ends_the_start_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert "give --data another one" in refusal(tmp_path / "data")
    assert "give --data another one" in refusal(tmp_path / "data" / "below")


@pytest.mark.parametrize("part", ["lock", "blobs", "uploads", "postgres", "server.json", "metrics", "append.sock"])
def test_something_else_in_place_of_a_part_of_it_ends_the_start_with_a_message(tmp_path: Path, part: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    made = data / part
    if part in ("lock", "server.json", "append.sock"):
        made.mkdir()
    else:
        made.write_text("a file")
    said = refusal(data)
    assert str(made) in said
    assert "give --data" in said
    assert ("--no-appender" in said) == (part == "append.sock")


def test_a_read_only_folder_ends_the_start_with_a_message(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        (disk / "data").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "read-only" in refusal(disk / "data").lower()
        assert "give --data another one" in refusal(disk / "missing")


@pytest.mark.parametrize("part", [".", "blobs", "uploads"])
def test_a_folder_of_another_owner_ends_the_start_with_a_message(tmp_path: Path, part: str) -> None:
    """The owner shuts the user out: the test runs it as root without the capability to pass over that."""
    if os.getuid() != 0 or shutil.which(NO_OVERRIDE[0]) is None:
        missing("root, who may give folders away, and setpriv")
    data = tmp_path / "data"
    (data / part).mkdir(parents=True, mode=0o700)
    shutil.chown(data / part, "nobody")
    said = refusal(data, *NO_OVERRIDE)
    assert str(data) in said
    assert "this user" in said
    assert "give --data" in said


def test_a_full_disk_ends_the_start_with_a_message(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        fill(disk)
        assert "No space left on device" in refusal(disk / "data")


def test_a_folder_in_which_nobody_can_make_a_file_ends_the_start_with_a_message() -> None:
    assert "give --data another one" in refusal(Path("/proc/sys"))
