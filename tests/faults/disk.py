"""A disk that can lose power. It watches what the product does to files; what was not flushed is then lost, kept or
mangled, as on a real file system.

The model is a local file system with a journal. Bytes of a file are safe after its fdatasync, names after the fsync of
the folder that they are in. A rename happens whole or not at all. Nothing else is promised: a name may be there without
the bytes, and a later change without an earlier one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

Names = dict[Path, "File"]


class PowerLoss(BaseException):
    """Raised where the machine stops; a BaseException, so that no handler of the product catches it."""


@dataclass(eq=False, slots=True)
class File:
    """A file's bytes at the last flush; `written` has its last bytes once its last name was taken away."""

    flushed: bytes = b""
    written: bytes | None = None


@dataclass(slots=True)
class Change:
    """A change of names, and the folders whose flush makes it durable."""

    folders: tuple[Path, ...]
    apply: Callable[[Names], None]
    flushed: bool = False


@dataclass(frozen=True, slots=True)
class Survival:
    """The fate of what was not flushed: of each change of names, and of the bytes of a file."""

    name: str
    keeps: Callable[[], bool]
    bytes_of: Callable[[bytes, bytes], bytes]


def _zeros(flushed: bytes, written: bytes) -> bytes:
    """The flushed bytes, and zeros up to the new length."""
    return flushed[: len(written)].ljust(len(written), b"\0")


FLUSHED = Survival("only what was flushed", lambda: False, lambda flushed, _: flushed)
NAMES = Survival("names without bytes", lambda: True, lambda flushed, _: flushed)
LENGTHS = Survival("names and lengths without bytes", lambda: True, _zeros)
EVERYTHING = Survival("everything", lambda: True, lambda _, written: written)
SURVIVALS = (FLUSHED, NAMES, LENGTHS, EVERYTHING)


def chance(random: Random) -> Survival:
    """A fate drawn for each change of names and for each file by itself: some of its bytes, up to any length."""

    def bytes_of(flushed: bytes, written: bytes) -> bytes:
        mixed = random.choice((flushed, written, _zeros(flushed, written)))
        cut = random.randint(0, len(written))
        return random.choice((mixed, written[:cut] + mixed[cut:], mixed[: max(cut, _same(flushed, written))]))

    return Survival("by chance", lambda: random.random() < 0.5, bytes_of)


def _same(flushed: bytes, written: bytes) -> int:
    """The number of safe bytes at the beginning: flushed, and not changed since."""
    pairs = enumerate(zip(flushed, written, strict=False))
    return next((place for place, (old, new) in pairs if old != new), min(len(flushed), len(written)))


class Disk:
    """The files under one folder. `steps` lists the steps that the product has made; power may be lost after one."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self._root = root
        self._left: int | None = None
        self._lost = False
        self._safe: Names = {}
        self._names: Names = {}
        self._changes: list[Change] = []
        self._open: dict[int, File | Path] = {}
        self._real = {name: getattr(os, name) for name in ("open", "close", "fsync", "rename", "unlink")}
        for name in ("pwrite", "write", "ftruncate"):
            patch.setattr(os, name, self._changing(getattr(os, name), name))
        patch.setattr(os, "open", self._do_open)
        patch.setattr(os, "close", self._do_close)
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._flushing(getattr(os, name)))
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._do_rename)
        for name in ("unlink", "remove"):
            patch.setattr(os, name, self._do_unlink)

    def stop_after(self, steps: int | None) -> None:
        """Lose power after so many more steps; never if None."""
        self.steps.clear()
        self._left = steps

    def step(self, name: str) -> None:
        """Note that a step was made; power may be lost here."""
        self.steps.append(name)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._lost = True
                raise PowerLoss(name)

    def require_power(self) -> None:
        """Raise PowerLoss if power is gone, so that not even a `finally` of the product changes a file."""
        if self._lost:
            raise PowerLoss("no power")

    def left(self, survival: Survival) -> dict[Path, bytes]:
        """The files that the folder would hold if power were lost now."""
        return self._contents(self._names_left(survival), survival)

    def restore(self, survival: Survival) -> None:
        """Give power back: the folder then holds what survived."""
        names = self._names_left(survival)
        survived = self._contents(names, survival)
        for path in self._names.keys() - survived.keys():
            self._real["unlink"](path)
        for path, content in survived.items():
            if self._names.get(path) is not names[path] or path.read_bytes() != content:
                path.write_bytes(content)
        self._safe = {path: File(content) for path, content in survived.items()}
        self._names = dict(self._safe)
        self._changes.clear()
        self._open.clear()
        self._lost, self._left = False, None

    def check(self) -> None:
        """Check that the model knows every file, so that the product made none by a call that is not watched."""
        found = {each for each in self._root.rglob("*") if each.is_file()}
        assert found == self._names.keys(), found ^ self._names.keys()

    def _names_left(self, survival: Survival) -> Names:
        names = dict(self._safe)
        for change in self._changes:
            if change.flushed or survival.keeps():
                change.apply(names)
        return names

    def _contents(self, names: Names, survival: Survival) -> dict[Path, bytes]:
        paths = {file: path for path, file in self._names.items()}
        written = {file: paths[file].read_bytes() if file.written is None else file.written for file in names.values()}
        return {path: survival.bytes_of(file.flushed, written[file]) for path, file in names.items()}

    def _watched(self, path: Any) -> Path | None:
        """The path if it is under the folder."""
        if not isinstance(path, str | os.PathLike):
            return None
        found = Path(os.fsdecode(path))
        return found if found.is_relative_to(self._root) else None

    def _change(self, folders: tuple[Path, ...], apply: Callable[[Names], None]) -> None:
        apply(self._names)
        self._changes.append(Change(folders, apply))

    def _do_open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        watched = self._watched(path)
        if watched is None:
            return int(self._real["open"](path, flags, mode, **more))
        self.require_power()
        descriptor = int(self._real["open"](path, flags, mode, **more))
        if watched.is_dir():
            self._open[descriptor] = watched
            return descriptor
        known = self._names.get(watched)
        self._open[descriptor] = file = known or File()
        if known is None:
            self._change((watched.parent,), lambda names: names.__setitem__(watched, file))
            self.step("create")
        return descriptor

    def _do_close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        self._real["close"](descriptor)

    def _changing(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def change(descriptor: int, *arguments: Any) -> Any:
            if descriptor not in self._open:
                return real(descriptor, *arguments)
            self.require_power()
            done = real(descriptor, *arguments)
            self.step(name)
            return done

        return change

    def _flushing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        """A flush of a file's bytes or of a folder's names; only the model notes it, a real flush is not needed."""

        def flush(descriptor: int) -> None:
            found = self._open.get(descriptor)
            if found is None:
                real(descriptor)
                return
            self.require_power()
            if isinstance(found, File):
                found.flushed = Path(f"/proc/self/fd/{descriptor}").read_bytes()
                self.step("flush bytes")
                return
            for change in self._changes:
                change.flushed = change.flushed or found in change.folders
            self.step("flush folder")

        return flush

    def _do_rename(self, source: Any, target: Any, **more: Any) -> None:
        old, new = self._watched(source), self._watched(target)
        if old is None or new is None:
            self._real["rename"](source, target, **more)
            return
        self.require_power()
        replaced = self._names.get(new)
        if replaced is not None:
            replaced.written = new.read_bytes()
        self._real["rename"](source, target, **more)
        file = self._names[old]

        def move(names: Names) -> None:
            if names.get(old) is file:
                del names[old]
            names[new] = file

        self._change((old.parent, new.parent), move)
        self.step("rename")

    def _do_unlink(self, path: Any, **more: Any) -> None:
        watched = self._watched(path)
        file = self._names.get(watched) if watched is not None else None
        if watched is None or file is None:
            self._real["unlink"](path, **more)
            return
        self.require_power()
        file.written = watched.read_bytes()
        self._real["unlink"](path, **more)

        def remove(names: Names) -> None:
            if names.get(watched) is file:
                del names[watched]

        self._change((watched.parent,), remove)
        self.step("unlink")
