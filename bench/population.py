"""Writes a realistic history of a registry into the log by COPY, for benchmarks that need a million events.

It has pushes of images by uploads and mounts, moves of tags ("latest" most of all), deletions of tags and manifests,
multi-arch indexes, referrers and repeated pushes; a Zipf law draws the repositories. The same seed makes the same
history. There are no bytes of blobs. The rows are those that the command side would have appended
(tests/test_population.py compares them).

    python bench/population.py EVENTS      loads a throw-away Postgres and prints events a second and counts by type
"""

import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from domain.facts import Facts, Reference, facts_to_json
from domain.media_types import OCI_INDEX, OCI_MANIFEST
from eventstore import verify
from eventstore.partition import DEFAULT_PARTITIONS, partition_of
from tests.postgres import Database, new_database, throwaway

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
EVENTS_PER_REPOSITORY = 1000
BASE_LAYERS = 200
TAGS_KEPT = 30
COLUMNS = (
    "position, recorded_at, version, log_id, partition, schema_version, sets_ref, event_id, stream, key, type, actor,"
    " request_id, prev_ref, ref, content, data, state, refers_to"
)
Row = tuple[object, ...]


@dataclass(slots=True)
class Repository:
    """The content of a repository while its history is made."""

    name: str
    partition: int
    known: bool = False
    links: dict[str, int] = field(default_factory=dict)
    manifests: dict[str, None] = field(default_factory=dict)
    pushed: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


class Population:
    """One history. `contents` fills up with (digest, body, facts) as manifests are pushed."""

    def __init__(self, events: int, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._wanted = events
        self._position = 0
        self._time = datetime(2026, 1, 1, tzinfo=UTC)
        count = max(2, events // EVENTS_PER_REPOSITORY)
        self._repositories = [self._repository(number) for number in range(count)]
        weights = [1 / (rank + 3) ** 0.8 for rank in range(count)]
        self._cumulative = [sum(weights[:1])]
        for weight in weights[1:]:
            self._cumulative.append(self._cumulative[-1] + weight)
        self._blobs: set[str] = set()
        self._serial = 0
        self.contents: list[tuple[str, bytes, str]] = []

    def _repository(self, number: int) -> Repository:
        return self._repository_of(f"team{number % 97}/app{number}")

    @staticmethod
    def _repository_of(name: str) -> Repository:
        return Repository(name, partition_of(name, DEFAULT_PARTITIONS))

    def rows(self) -> Iterator[Row]:
        """The rows of the log, in order; a few more than wanted, to end with a whole command."""
        while self._position < self._wanted:
            (repository,) = self._chance.choices(self._repositories, cum_weights=self._cumulative)
            self._time += timedelta(milliseconds=self._chance.randrange(1, 400))
            yield from self._command(repository)

    def _command(self, repository: Repository) -> Iterator[Row]:
        what = self._chance.random()
        if what < 0.70 or not repository.manifests:
            yield from self._image(repository, self._tag())
        elif what < 0.78:
            yield from self._index(repository)
        elif what < 0.84:
            yield from self._referrer(repository)
        elif what < 0.90:
            digest = self._chance.choice(list(repository.manifests))
            if digest in repository.pushed:
                yield from self._push(repository, digest, (self._tag(),), None)
        elif what < 0.96 and repository.tags:
            yield self._tag_deleted(repository, self._chance.choice(list(repository.tags)))
        elif repository.manifests:
            yield from self._manifest_deleted(repository, self._chance.choice(list(repository.manifests)))

    def _tag(self) -> str:
        return "latest" if self._chance.random() < 0.4 else f"v{self._chance.randrange(TAGS_KEPT)}"

    def _digest(self) -> str:
        self._serial += 1
        return "sha256:" + hashlib.sha256(f"{self._serial}".encode()).hexdigest()

    def _image(self, repository: Repository, *tags: str) -> Iterator[Row]:
        base = "sha256:" + hashlib.sha256(f"base {self._chance.randrange(BASE_LAYERS)}".encode()).hexdigest()
        size = self._chance.randrange(10_000, 50_000_000)
        layer, config = self._digest(), self._digest()
        yield from self._link(repository, base, 30_000_000, mounted=base in self._blobs)
        for digest, bytes_of in ((layer, size), (config, 2_000)):
            yield from self._link(repository, digest, bytes_of, mounted=False)
        digest = self._digest()
        facts = Facts(
            kind="manifest",
            references=(
                Reference("config", config, CONFIG, 2_000),
                Reference("layer", base, LAYER, 30_000_000),
                Reference("layer", layer, LAYER, size),
            ),
            artifact_type=CONFIG,
            config_media_type=CONFIG,
            annotations={"org.opencontainers.image.revision": digest[-12:]},
            size=size + 30_002_000,
            platform="linux/amd64",
            created="2026-01-01T00:00:00Z",
        )
        yield from self._push(repository, digest, tags, facts)

    def _index(self, repository: Repository) -> Iterator[Row]:
        before = set(repository.manifests)
        for _ in range(2):
            yield from self._image(repository)
        children = [each for each in repository.manifests if each not in before]
        references = tuple(Reference("child", each, OCI_MANIFEST, 500, "linux/amd64") for each in children)
        facts = Facts(kind="index", references=references, size=1_000)
        yield from self._push(repository, self._digest(), (self._tag(),), facts, OCI_INDEX)

    def _referrer(self, repository: Repository) -> Iterator[Row]:
        subject = self._chance.choice(list(repository.manifests))
        config = self._digest()
        yield from self._link(repository, config, 200, mounted=False)
        facts = Facts(
            kind="manifest",
            references=(Reference("config", config, CONFIG, 200),),
            subject=subject,
            artifact_type="application/vnd.test.signature",
            size=200,
        )
        yield from self._push(repository, self._digest(), (), facts)

    def _link(self, repository: Repository, digest: str, size: int, *, mounted: bool) -> Iterator[Row]:
        if digest not in self._blobs:
            self._blobs.add(digest)
            data = f'{{"digest":"{digest}","generation":0,"size":{size}}}'
            yield self._row(
                None, f"blob-{digest}", 1, "BlobCommitted", data, None, "live", key=digest,
                state=f'{{"generation":0,"size":{size}}}',
            )  # fmt: skip
        yield from self._created(repository)
        if digest in repository.links:
            return
        repository.links[digest] = size
        source = '"mounted_from":"library/base","repository"' if mounted else '"repository"'
        data = (
            f'{{"digest":"{digest}","generation":0,{source}:"{repository.name}","size":{size},'
            f'"source":"{"mount" if mounted else "upload"}"}}'
        )
        yield self._row(
            repository, f"link-{repository.name}@{digest}", 1, "BlobLinked", data, None, "live",
            state=f'{{"generation":0,"size":{size}}}', refers_to=[f"blob-{digest}"],
        )  # fmt: skip

    def _created(self, repository: Repository) -> Iterator[Row]:
        if not repository.known:
            repository.known = True
            data = f'{{"repository":"{repository.name}"}}'
            yield self._row(repository, f"repo-{repository.name}", 1, "RepositoryCreated", data, None, "live")

    def _push(
        self,
        repository: Repository,
        digest: str,
        tags: tuple[str, ...],
        facts: Facts | None,
        media_type: str = OCI_MANIFEST,
    ) -> Iterator[Row]:
        """A push of a manifest: with its facts if it is the first, without them if it repeats an earlier one."""
        stream = f"manifest-{repository.name}@{digest}"
        if facts is not None:
            body = f'{{"schemaVersion":2,"digest":"{digest}"}}'.encode()
            self.contents.append((digest, body, facts_to_json(facts)))
            subject = "" if facts.subject is None else f',"subject":"{facts.subject}"'
            repository.pushed[digest] = (len(body), media_type, subject)
            repository.manifests[digest] = None
        size, media_type, subject = repository.pushed[digest]
        named = [
            f"manifest-{repository.name}@{each.digest}"
            if each.role == "child"
            else f"link-{repository.name}@{each.digest}"
            for each in (facts.references if facts is not None else ())
        ]
        name = repository.name
        data = f'{{"digest":"{digest}","media_type":"{media_type}","repository":"{name}","size":{size}{subject}}}'
        yield self._row(
            repository, stream, self._next(repository, stream), "ManifestPushed", data,
            None if facts is not None else "present", "present", content=digest, state=f'{{"size":{size}}}',
            refers_to=named if facts is not None else None,
        )  # fmt: skip
        for tag in tags:
            tag_stream = f"tag-{repository.name}:{tag}"
            before = repository.tags.get(tag)
            moved = f'{{"digest":"{digest}","repository":"{repository.name}","tag":"{tag}"}}'
            yield self._row(
                repository, tag_stream, self._next(repository, tag_stream), "TagMoved", moved,
                None if before is None else f"manifest-{repository.name}@{before}", stream,
            )  # fmt: skip
            repository.tags[tag] = digest

    def _tag_deleted(self, repository: Repository, tag: str) -> Row:
        before = repository.tags.pop(tag)
        stream = f"tag-{repository.name}:{tag}"
        data = f'{{"repository":"{repository.name}","tag":"{tag}"}}'
        return self._row(
            repository, stream, self._next(repository, stream), "TagDeleted", data,
            f"manifest-{repository.name}@{before}", None,
        )  # fmt: skip

    def _manifest_deleted(self, repository: Repository, digest: str) -> Iterator[Row]:
        del repository.manifests[digest]
        repository.pushed.pop(digest, None)
        stream = f"manifest-{repository.name}@{digest}"
        data = f'{{"digest":"{digest}","repository":"{repository.name}"}}'
        yield self._row(
            repository, stream, self._next(repository, stream), "ManifestDeleted", data, "present", None,
            content=digest, refers_to=[],
        )  # fmt: skip
        for tag in sorted(tag for tag, named in repository.tags.items() if named == digest):
            yield self._tag_deleted(repository, tag)

    def _next(self, repository: Repository, stream: str) -> int:
        version = repository.versions.get(stream, 0) + 1
        repository.versions[stream] = version
        return version

    def _row(
        self,
        repository: Repository | None,
        stream: str,
        version: int,
        event_type: str,
        data: str,
        prev_ref: str | None,
        ref: str | None,
        *,
        key: str = "",
        content: str | None = None,
        state: str | None = None,
        refers_to: list[str] | None = None,
        schema_version: int = 1,
    ) -> Row:
        self._position += 1
        name = key if repository is None else repository.name
        partition = partition_of(key, DEFAULT_PARTITIONS) if repository is None else repository.partition
        return (
            *(self._position, self._time, version, 0, partition, schema_version, True),
            *(_uuid(self._chance.getrandbits(128)), stream, name, event_type, "anonymous"),
            *(f"r{self._position}", prev_ref, ref, content, data, state, refers_to),
        )


def _uuid(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def load(database: Database, events: int, seed: int = 1) -> int:
    """Write a history of about so many events into a fresh log; answers the position of its last event."""
    return write(database, Population(events, seed))


def write(database: Database, population: Population) -> int:
    """Write the rows and contents of a given history into a fresh log; answers the position of its last event."""
    last = 0
    with psycopg.connect(database.admin_url) as connection, connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
        # Indexes are made afterwards: kept up row by row they would cost ten times the rest.
        again = [
            *_definitions(cursor, "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint", "CONSTRAINT"),
            *_definitions(cursor, "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index", "INDEX"),
        ]
        with cursor.copy(f"COPY log.es_event ({COLUMNS}) FROM STDIN") as copy:
            for row in population.rows():
                copy.write_row(row)
                last += 1
        for statement in again:
            cursor.execute(statement)
        with cursor.copy("COPY log.es_content (digest, body, facts, stored_at) FROM STDIN") as copy:
            moment = datetime(2026, 1, 1, tzinfo=UTC)
            for digest, body, facts in population.contents:
                copy.write_row((digest, body, facts, moment))
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) log.es_event")
        connection.execute("VACUUM (ANALYZE) log.es_content")
    return last


def _definitions(cursor: psycopg.Cursor[Row], query: str, kind: str) -> list[str]:
    """Drop the constraints or the indexes of the table of events; answers the statements that make them again."""
    if kind == "CONSTRAINT":
        found = cursor.execute(
            f"{query} WHERE conrelid = 'log.es_event'::regclass AND contype IN ('p', 'u')"
        ).fetchall()
        for name, _ in found:
            cursor.execute(f"ALTER TABLE log.es_event DROP CONSTRAINT {name}")
        return [f"ALTER TABLE log.es_event ADD CONSTRAINT {name} {definition}" for name, definition in found]
    found = cursor.execute(f"{query} WHERE indrelid = 'log.es_event'::regclass").fetchall()
    for name, _ in found:
        cursor.execute(f"DROP INDEX {name}")
    return [str(definition) for _, definition in found]


def load_all(database: Database, events: int, seed: int = 1) -> int:
    """Write a history as `load` does, and the rows beside its streams, which later appends need."""
    last = load(database, events, seed)
    verify.rebuild(database.owner_url)
    return last


def main() -> None:
    """Load a throw-away Postgres and tell what it took."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with throwaway() as server:
        database = new_database(server)
        began = time.perf_counter()
        last = load(database, events)
        took = time.perf_counter() - began
        print(f"{last:,} events in {took:.1f} s, {last / took:,.0f} a second")
        print(Counter(row[10] for row in Population(min(events, 200_000)).rows()))


if __name__ == "__main__":
    main()
