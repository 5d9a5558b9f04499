"""Lets one user search the folders above a path, by POSIX ACLs of Linux. No other right changes.

An entry for the user is added. The mask that the kernel wants beside it is wide enough for that entry alone, so no
other entry gains by it.
"""

import errno
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_MASKED = (_USER, _GROUP_OWNER, _GROUP)
_NOBODY = 0xFFFFFFFF
_READ, _SEARCH = 4, 1

Entries = dict[tuple[int, int], int]


class CannotGrant(Exception):
    """The file system has no ACLs, or they may not be changed."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the system, with the rights of his processes and no further groups."""

    uid: int
    gid: int


def let_search(user: User, path: Path) -> None:
    """Let the user search every folder above `path` that he cannot search yet; listing stays as it is.

    Only root may call it. Raises CannotGrant.
    """
    for folder in reversed(path.resolve().parents):
        if not may(user, folder, os.X_OK):
            _grant(user, folder, _SEARCH)


def let_read(user: User, folder: Path) -> None:
    """Let the user read, and search or run, everything below `folder` that he cannot read yet (an install under a
    strict umask). Only root may call it. Raises CannotGrant.
    """
    for path in [folder, *_below(folder)]:
        wanted = _READ | _SEARCH if path.is_dir() or path.stat().st_mode & 0o100 else _READ
        if not may(user, path, wanted):
            _grant(user, path, wanted)


def _below(folder: Path) -> Iterable[Path]:
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if path.exists() and not path.is_symlink():
                yield path


def may(user: User, path: Path, wanted: int) -> bool:
    """True if the kernel would let the user. A child process that has become him asks it."""
    child = os.fork()
    if child == 0:
        allowed = False
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            allowed = os.access(path, wanted)
        finally:
            os._exit(0 if allowed else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _grant(user: User, path: Path, permissions: int) -> None:
    _write(path, granted(_read(path), user.uid, permissions))


def granted(entries: Entries, uid: int, permissions: int) -> Entries:
    """The entries with `permissions` for the user added and every other effective right unchanged."""
    mask = entries.get((_MASK, _NOBODY), 7)
    effective = {
        (tag, who): allowed & mask if tag in _MASKED else allowed
        for (tag, who), allowed in entries.items()
        if tag != _MASK
    }
    effective[_USER, uid] = effective.get((_USER, uid), 0) | permissions
    wide = 0
    for (tag, _), allowed in effective.items():
        if tag in _MASKED:
            wide |= allowed
    effective[_MASK, _NOBODY] = wide
    return effective


def _read(path: Path) -> Entries:
    try:
        raw = os.getxattr(path, _ATTRIBUTE)
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise CannotGrant(f"{path}: {problem.strerror}") from problem
        mode = path.stat().st_mode
        return {
            (_USER_OWNER, _NOBODY): mode >> 6 & 7,
            (_GROUP_OWNER, _NOBODY): mode >> 3 & 7,
            (_OTHER, _NOBODY): mode & 7,
        }
    return {(tag, who): allowed for tag, allowed, who in _ENTRY.iter_unpack(raw[len(_VERSION) :])}


def _write(path: Path, entries: Entries) -> None:
    packed = _VERSION + b"".join(_ENTRY.pack(tag, entries[tag, who], who) for tag, who in sorted(entries))
    try:
        os.setxattr(path, _ATTRIBUTE, packed)
    except OSError as problem:
        raise CannotGrant(f"{path}: {problem.strerror}") from problem
