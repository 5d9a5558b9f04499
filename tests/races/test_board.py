"""Four processes change and read the same things with kept answers. No answer is older than a change that anybody was
told of, or has read, before the question; with a change board and without.

Shared counters say which changes are known, and each reader notes them before it reads. The long form with a million
reads and writes is `make test-long PART=board`.
"""

import multiprocessing
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from ctypes import Array, c_int64
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from queue import Empty

import pytest

from eventstore.board.board import Board
from eventstore.board.registrar import Registrar
from eventstore.board.writer import Writer
from eventstore.store import Store
from eventstore.validating import Validator
from protocol.messages import Answer, Environ
from query_api.cache import AnswerCache, Voucher
from tests.eventstore.making import command, event
from tests.postgres import Database

PROCESSES = 4
KEYS = 50
WRITES_OF = 100
LATE_S = 0.005
SEED = 20261126
TIMEOUT_S = 1100.0
_processes = multiprocessing.get_context("fork")


@dataclass
class Versions:
    """The versions of a key's streams, one for each process."""

    found: tuple[int, ...]

    def answer(self, environ: Environ) -> Answer:
        """Fail: nobody asks for this page by HTTP."""
        raise AssertionError("nobody asks for it by HTTP")

    answer_at_once = answer


@dataclass
class Tally:
    """The work of a process; `stale` describes the answers that were too old."""

    kept: int
    asked: int
    written: int
    stale: list[str]


class Mixed:
    """One process's reads and writes."""

    def __init__(self, number: int, store: Store, voucher: Voucher, known: "Array[c_int64]") -> None:
        self._number = number
        self._chance = random.Random(SEED + number)
        self._store = store
        self._cache = AnswerCache(voucher, 1 << 20)
        self._known = known
        self._versions = [0] * KEYS
        self.tally = Tally(0, 0, 0, [])

    def run(self, times: int) -> Tally:
        """Make so many reads and writes."""
        for _ in range(times):
            # A few keys get most of it, as with images.
            key = min(int(self._chance.paretovariate(0.6)) - 1, KEYS - 1)
            if self._chance.randrange(WRITES_OF):
                self._read(key)
            else:
                self._write(key)
        self._store.close()
        return self.tally

    def _streams(self, key: int) -> list[str]:
        return [f"{key}/{number}" for number in range(PROCESSES)]

    def _write(self, key: int) -> None:
        self._store.append(command(event(self._streams(key)[self._number], key=str(key))))
        self.tally.written += 1
        self._versions[key] += 1
        self._learn(key * PROCESSES + self._number, self._versions[key])

    def _learn(self, place: int, version: int) -> None:
        """Tell all processes of a version. If two do so at once the lower one may win, which is known as well."""
        self._known[place] = max(self._known[place], version)

    def _read(self, key: int) -> None:
        oldest = tuple(self._known[key * PROCESSES : (key + 1) * PROCESSES])
        found = self._find(key)
        if any(have < least for have, least in zip(found, oldest, strict=True)):
            self.tally.stale.append(f"process {self._number}: key {key} at {found}, known was {oldest}")
        for number, version in enumerate(found):
            self._learn(key * PROCESSES + number, version)

    def _find(self, key: int) -> tuple[int, ...]:
        kept = self._cache.find(str(key))
        if isinstance(kept, Versions):
            self.tally.kept += 1
            return kept.found
        self.tally.asked += 1
        opening = self._cache.open(str(key))
        states = self._store.stream_states(self._streams(key))
        found = tuple(states[each].version for each in self._streams(key))
        if opening is not None:
            self._cache.keep(str(key), opening, Versions(found), 0)
        return found


class LateWriter(Writer):
    """A writer with a defect: it says what it changes only when that has been changed."""

    def begin(self, cells: Collection[int]) -> None:
        """Say nothing yet."""

    def end(self, cells: Collection[int]) -> None:
        """Say all of it now that it is over, and others have had time to read."""
        time.sleep(LATE_S)
        super().begin(cells)
        super().end(cells)


class LateBoard(Board):
    """A board of a process that says too late what it changes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._writer = LateWriter(self._cells, self._descriptor)


Kept = tuple[Store, Voucher]


@contextmanager
def with_board(url: str, made: Callable[[Path], Board]) -> Iterator[Callable[[], Kept]]:
    """Give a call that makes the store and the board of a process of one server."""
    server = Registrar(url, "ours", places=PROCESSES + 1)
    server.start()

    def kept() -> Kept:
        board = made(server.path)
        return Store(url, board=board), board

    try:
        yield kept
    finally:
        server.stop()


def by_validating(url: str) -> Kept:
    """The store and the validator of a process whose server shares the database with others."""
    store = Store(url)
    return store, Validator(store.marks)


def play(times: int, kept: Callable[[], Kept]) -> list[Tally]:
    """Let all processes play at once; answers the tally of each."""
    known = RawArray(c_int64, KEYS * PROCESSES)
    tallies = _processes.Queue()

    def work(number: int) -> None:
        tallies.put(Mixed(number, *kept(), known).run(times // PROCESSES))

    players = [_processes.Process(target=work, args=(number,), daemon=True) for number in range(PROCESSES)]
    try:
        for each in players:
            each.start()
        return [tallies.get(timeout=TIMEOUT_S) for _ in players]
    except Empty:
        raise AssertionError(f"processes ended with {[each.exitcode for each in players]}") from None
    finally:
        for each in players:
            each.kill()
            each.join()


@pytest.mark.parametrize("times", [60_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_nothing_that_is_kept_is_stale(database: Database, times: int) -> None:
    """The processes share a board."""
    with with_board(database.app_url, Board) as kept:
        assert_fresh(play(times, kept), times)


@pytest.mark.parametrize("times", [6_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_nothing_that_is_validated_is_stale(database: Database, times: int) -> None:
    """The processes are of servers that share nothing but the database."""
    assert_fresh(play(times, partial(by_validating, database.app_url)), times)


def assert_fresh(tallies: Sequence[Tally], times: int) -> None:
    """Check that no answer was stale, and that most came from memory."""
    print(f"seed {SEED}", *tallies, sep="\n")
    assert [each.stale for each in tallies] == [[]] * PROCESSES
    assert sum(each.kept for each in tallies) > times / 2
    assert min(each.written for each in tallies) > times / PROCESSES / WRITES_OF / 2


def test_this_test_would_see_stale_answers(database: Database) -> None:
    """A board that is told of a change only after it was made leads to stale answers, and the test sees them."""
    with with_board(database.app_url, LateBoard) as kept:
        assert any(each.stale for each in play(20_000, kept))
