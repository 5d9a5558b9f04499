"""The user that runs Postgres is let through folders: it may search them, and nothing changes for anybody else."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from tagtrail.server.permissions import Entries, User, granted, let_read, let_search, may

OWNER, USER, GROUP, OTHER_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ANY = 0xFFFFFFFF
UID = 990

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users and set their rights")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            {(OWNER, ANY): 7, (GROUP, ANY): 0, (OTHER, ANY): 0},
            {(OWNER, ANY): 7, (USER, UID): 1, (GROUP, ANY): 0, (MASK, ANY): 1, (OTHER, ANY): 0},
            id="0700",
        ),
        pytest.param(
            {(OWNER, ANY): 7, (GROUP, ANY): 5, (OTHER, ANY): 0},
            {(OWNER, ANY): 7, (USER, UID): 1, (GROUP, ANY): 5, (MASK, ANY): 5, (OTHER, ANY): 0},
            id="0750",
        ),
        pytest.param(
            {(OWNER, ANY): 7, (USER, 5): 7, (GROUP, ANY): 7, (MASK, ANY): 4, (OTHER, ANY): 0},
            {(OWNER, ANY): 7, (USER, 5): 4, (USER, UID): 1, (GROUP, ANY): 4, (MASK, ANY): 5, (OTHER, ANY): 0},
            id="what a mask held back stays held back when the mask grows",
        ),
        pytest.param(
            {(OWNER, ANY): 7, (USER, UID): 4, (OTHER_GROUP, 8): 5, (GROUP, ANY): 0, (MASK, ANY): 5, (OTHER, ANY): 0},
            {(OWNER, ANY): 7, (USER, UID): 5, (OTHER_GROUP, 8): 5, (GROUP, ANY): 0, (MASK, ANY): 5, (OTHER, ANY): 0},
            id="an entry of his own is added to",
        ),
    ],
)
def test_one_entry_is_added_and_every_other_effective_right_stays(before: Entries, after: Entries) -> None:
    assert granted(before, UID, 1) == after


def user(name: str) -> User:
    """A user of the system by name."""
    entry = pwd.getpwnam(name)
    return User(entry.pw_uid, entry.pw_gid)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder in a folder, both shut to all but root."""
    inner = tmp_path / "private" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "letter").write_text("dear diary")
    inner.parent.chmod(0o700)
    inner.chmod(0o755)
    return inner


@root_only
def test_in_a_folder_of_mode_0700_he_may_search_but_not_list_and_nobody_else_gains(private: Path) -> None:
    him, stranger = user("daemon"), user("nobody")
    outer = private.parent
    let_search(him, private)
    assert may(him, outer, os.X_OK)
    assert not may(him, outer, os.R_OK)
    assert not may(him, outer, os.W_OK)
    assert not may(stranger, outer, os.X_OK)
    assert not may(stranger, outer, os.R_OK)
    assert outer.stat().st_mode & 0o007 == 0
    assert may(User(0, 0), outer, os.R_OK | os.W_OK | os.X_OK)


@root_only
def test_a_folder_that_he_can_search_already_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "inner"
    folder.mkdir(parents=True)
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/tmp"):
            assert each.stat().st_mode & 0o7000 in (0, 0o1000)
    folder.parent.chmod(0o711)
    let_search(user("daemon"), folder)
    assert "system.posix_acl_access" not in os.listxattr(folder.parent)


@root_only
def test_a_program_installed_under_a_strict_umask_can_be_run_by_him_alone(private: Path) -> None:
    him, stranger = user("daemon"), user("nobody")
    folder = private / "bin"
    folder.mkdir(mode=0o700)
    program, data = folder / "program", folder / "data"
    for path, mode in ((program, 0o700), (data, 0o600)):
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    let_search(him, folder)
    let_read(him, folder)
    assert may(him, program, os.R_OK | os.X_OK)
    assert may(him, data, os.R_OK)
    assert not may(him, data, os.X_OK)
    assert not may(him, program, os.W_OK)
    assert not may(stranger, program, os.R_OK)


@root_only
@pytest.mark.parametrize("check", [os.R_OK, os.W_OK, os.X_OK])
def test_asking_what_a_user_may_do_is_asking_the_kernel(private: Path, check: int) -> None:
    permitted: Callable[[str], bool] = lambda name: may(user(name), private.parent, check)  # noqa: E731
    assert permitted("root")
    assert not permitted("nobody")
