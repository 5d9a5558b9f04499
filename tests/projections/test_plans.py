"""For a GET over a large list the database reads the page and the tail, and neither the rest of the list nor the log.

The statements and their parameters are those that requests have sent, and the planner is free to choose. bench/sizes.py
measures the times of much larger lists.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import psycopg
import pytest

from bench.population import write
from bench.sizes import Lists
from eventstore import verify
from eventstore.reader import Reader as StoreReader
from eventstore.statement import Parameters, Row, Statement
from eventstore.store import _STREAM_STATE
from projections.all_models import MODELS
from projections.builds.rebuild import fold, rebuild
from tests.api import Registry, registry_over, sha256
from tests.eventstore.costs import cost
from tests.postgres import Server, drop_database, new_database

TAGS, REFERRERS, REPOSITORIES = 8_000, 2_000, 2_000
PAGE = 10
# The protocol leaves this one to the registry.
REFERRERS_PAGE = 1000
# Rows beyond those of the page. One tells that there is another page; a pull reads tag, manifest and content; the few
# references of a blob are counted, shown, and looked up again where the tail changes them.
ROWS_MORE = 8
# The tags fill some 240 blocks of their table and its index; each row shown may lie in a block of its own.
BLOCKS_MORE = 120
LAYER = b"layer"


@pytest.fixture(scope="module")
def large(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of many repositories, one of many tags, and one of many referrers, all projected."""
    database = new_database(postgres_server)
    lists = Lists(REPOSITORIES, tagged=(TAGS,), referred=(REFERRERS,))
    write(database, lists)
    verify.rebuild(database.owner_url)
    with registry_over(database, tmp_path_factory.mktemp("large")) as made:
        fold(database.app_url, MODELS)
        for model in MODELS:
            rebuild(database.app_url, model)
        made.names = {"subject": lists.subjects[0], "manifest": made.push("u/app", "v1", LAYER), "layer": sha256(LAYER)}
        made.project()
        with psycopg.connect(database.admin_url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
        yield made
    drop_database(postgres_server, database)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v2/_catalog?n={n}&last=repository-001000", PAGE),
        ("/v2/tags/8000/tags/list?n={n}&last=t0004000", PAGE),
        ("/v2/referrers/2000/referrers/{subject}", REFERRERS_PAGE),
        ("/api/v1/repositories/tags/8000/history?n={n}", PAGE),
        ("/api/v1/repositories/tags/8000/history?n={n}&tag=t0004000", 1),
        ("/api/v1/repositories/tags/8000/history?n={n}&what=tag-created", PAGE),
        ("/api/v1/history?n={n}&actor=anonymous", PAGE),
        ("/api/v1/history?n={n}&what=tag-created&before=20000", PAGE),
        ("/api/v1/blobs/{layer}/references", 1),
        ("/v2/u/app/manifests/{manifest}", 1),
        ("/v2/u/app/manifests/v1", 1),
        ("/v2/tags/8000/manifests/t0004000", 1),
        ("/v2/u/app/blobs/{layer}", 1),
    ],
)
def test_a_question_costs_what_it_shows_and_reads_no_event(
    large: Registry, monkeypatch: pytest.MonkeyPatch, path: str, shown: int
) -> None:
    """If the projector is level, it reads few rows beyond those of the page, and no event at all."""
    asked: list[tuple[str | Statement, Parameters]] = []
    rows_of = StoreReader.rows

    def listening(reader: StoreReader, query: str | Statement, parameters: Parameters = ()) -> list[Row]:
        # A pull also asks for the position of the last event, to know if an answer that was kept is still right.
        if query is _STREAM_STATE or (isinstance(parameters, Mapping) and "tail" in parameters):
            asked.append((query, parameters))
        return rows_of(reader, query, parameters)

    monkeypatch.setattr(StoreReader, "rows", listening)
    assert large.get(path.format(n=PAGE, **large.names)).status_code == 200
    assert asked, "the answer was kept, or the database was asked in another way"
    with psycopg.connect(large.rooms.settings.database_url) as connection:
        costs = [cost(connection, query, parameters) for query, parameters in asked]
    rows: Counter[str] = Counter()
    for each in costs:
        rows.update(each.rows)
    assert rows.pop("es_event", 0) == 0
    del rows["checkpoint"], rows["parked"]
    assert shown <= rows.total() <= shown + ROWS_MORE, rows
    assert sum(each.blocks for each in costs) <= shown + BLOCKS_MORE
