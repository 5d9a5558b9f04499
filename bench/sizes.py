"""Compares pages of small and of very large lists: `python bench/sizes.py`.

Asks for a page of 100 tags of a repository with 1,000 and with 1,000,000 tags, for a page of the catalog of 100 and of
100,000 repositories, and for ten referrers of a subject with 10 and with 10,000. Pages of tags and repositories begin
in the middle of the list, and the projector is level. Only the question of the GET is measured, without HTTP. Prints
medians and their ratio.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.population import Population, Row, write
from domain.facts import Facts
from eventstore.store import Store
from projections.builds.rebuild import rebuild
from projections.engine.setup import ensure_tables
from projections.models import catalog, referrers, tags
from projections.reader import Reader
from tests.postgres import Server, new_database, throwaway

N = 100
ASKED = 300
FEW_TAGS, MANY_TAGS = 1_000, 1_000_000
FEW_REFERRERS, MANY_REFERRERS = 10, 10_000
FEW_REPOSITORIES, MANY_REPOSITORIES = 100, 100_000
_IMAGE = Facts(kind="manifest", references=(), size=500)


class Lists(Population):
    """A registry of so many repositories with a manifest each; two have tags, two have referrers of one subject."""

    def __init__(self, repositories: int, *, tagged: tuple[int, ...] = (), referred: tuple[int, ...] = ()) -> None:
        super().__init__(0)
        self._count = repositories
        self._tagged = tagged
        self._referred = referred
        self.subjects: list[str] = []

    def rows(self) -> Iterator[Row]:
        """The rows of the log, in order."""
        for number in range(self._count):
            yield from self._pushed(f"repository-{number:06d}", ())
        for number in self._tagged:
            yield from self._pushed(f"tags/{number}", tuple(f"t{each:07d}" for each in range(number)))
        for number in self._referred:
            yield from self._pushed(f"referrers/{number}", (), number)

    def _pushed(self, name: str, named: tuple[str, ...], referring: int = 0) -> Iterator[Row]:
        repository = self._repository_of(name)
        yield from self._created(repository)
        subject = self._digest()
        yield from self._push(repository, subject, named, _IMAGE)
        if referring:
            self.subjects.append(subject)
        facts = Facts(kind="manifest", references=(), subject=subject, artifact_type="application/vnd.test", size=200)
        for _ in range(referring):
            yield from self._push(repository, self._digest(), (), facts)


def store_over(server: Server, lists: Lists) -> Store:
    """A store over a log with the history of these lists, whose read models are level with it."""
    database = new_database(server)
    write(database, lists)
    ensure_tables(database.app_url)
    for model in (tags.model, catalog.model, referrers.model):
        rebuild(database.app_url, model)
    return Store(database.app_url)


def compare(what: str, few: tuple[str, Callable[[], object]], many: tuple[str, Callable[[], object]]) -> None:
    """Ask for both pages in turn, ASKED times each; print the medians and their ratio."""
    took: list[list[float]] = [[], []]
    for _ in range(ASKED):
        for times, (_, ask) in zip(took, (few, many), strict=True):
            began = time.perf_counter()
            ask()
            times.append(1000 * (time.perf_counter() - began))
    short, long = map(statistics.median, took)
    print(f"{what:<12} {few[0]:>9}: {short:.3f} ms   {many[0]:>9}: {long:.3f} ms   {long / short:.2f} x", flush=True)


def main() -> None:
    """Make the small and the large lists, and compare their pages."""
    with throwaway(shared_buffers="96MB", max_wal_size="1GB") as server:
        few = Lists(FEW_REPOSITORIES)
        small_store = store_over(server, few)
        small = Reader(small_store.reader)
        many = Lists(MANY_REPOSITORIES, tagged=(FEW_TAGS, MANY_TAGS), referred=(FEW_REFERRERS, MANY_REFERRERS))
        large_store = store_over(server, many)
        large = Reader(large_store.reader)

        def tags_page(number: int) -> Callable[[], object]:
            return lambda: tags.page(large, f"tags/{number}", f"t{number // 2:07d}", N)

        def referrers_of(number: int, subject: str) -> Callable[[], object]:
            return lambda: referrers.page(large, f"referrers/{number}", subject, frozenset(), None, FEW_REFERRERS)

        def catalog_page(reader: Reader, number: int) -> Callable[[], object]:
            return lambda: catalog.page(reader, f"repository-{number // 2:06d}", FEW_REPOSITORIES // 4)

        compare("tags", (f"{FEW_TAGS:,}", tags_page(FEW_TAGS)), (f"{MANY_TAGS:,}", tags_page(MANY_TAGS)))
        compare(
            "catalog",
            (f"{FEW_REPOSITORIES:,}", catalog_page(small, FEW_REPOSITORIES)),
            (f"{MANY_REPOSITORIES:,}", catalog_page(large, MANY_REPOSITORIES)),
        )
        few_of, many_of = many.subjects
        compare(
            "referrers",
            (f"{FEW_REFERRERS:,}", referrers_of(FEW_REFERRERS, few_of)),
            (f"{MANY_REFERRERS:,}", referrers_of(MANY_REFERRERS, many_of)),
        )
        small_store.close()
        large_store.close()


if __name__ == "__main__":
    main()
