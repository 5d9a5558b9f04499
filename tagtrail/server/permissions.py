"""Letting one user search the folders above a path, and nothing else for nobody else (POSIX ACLs of Linux)."""

import errno
import os
import struct
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF
_SEARCH = 1


class CannotGrant(Exception):
    """The file system has no ACLs, or they may not be changed."""


def let_search(user: int, path: Path) -> None:
    """Give the user id search permission on every folder above `path` that it cannot search yet.

    Listing and reading stay as they are, for this user and all others. Raises CannotGrant.
    """
    for folder in path.resolve().parents:
        status = folder.stat()
        if status.st_mode & 0o001 or status.st_uid == user:
            continue
        entries = _read(folder, status.st_mode)
        entries[_USER, user] = entries.get((_USER, user), 0) | _SEARCH
        classes = (_USER, _GROUP_OWNER, _GROUP)
        mask = entries.get((_MASK, _NOBODY), 0)
        needed = _SEARCH if (_MASK, _NOBODY) in entries else 0
        for (tag, _), permissions in entries.items():
            if tag in classes and not needed:
                mask |= permissions
        entries[_MASK, _NOBODY] = mask | _SEARCH
        _write(folder, entries)


def _read(folder: Path, mode: int) -> dict[tuple[int, int], int]:
    try:
        raw = os.getxattr(folder, _ATTRIBUTE)
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise CannotGrant(f"{folder}: {problem.strerror}") from problem
        return {
            (_USER_OWNER, _NOBODY): mode >> 6 & 7,
            (_GROUP_OWNER, _NOBODY): mode >> 3 & 7,
            (_OTHER, _NOBODY): mode & 7,
        }
    return {(tag, who): permissions for tag, permissions, who in _ENTRY.iter_unpack(raw[len(_VERSION) :])}


def _write(folder: Path, entries: dict[tuple[int, int], int]) -> None:
    packed = _VERSION + b"".join(_ENTRY.pack(tag, entries[tag, who], who) for tag, who in sorted(entries))
    try:
        os.setxattr(folder, _ATTRIBUTE, packed)
    except OSError as problem:
        raise CannotGrant(f"{folder}: {problem.strerror}") from problem
