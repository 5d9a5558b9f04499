"""After a database was restored from a backup, positions are used again, and every read model is right."""

from pathlib import Path

import psycopg
import pytest

from eventstore import schema
from eventstore.feed.metrics import DISCARDED
from eventstore.feed.settings import KafkaSettings
from projections.builds import admin
from tests.api import registry_over
from tests.feed.running import assert_feed_right, assert_right, fed
from tests.folded import wait_folded
from tests.postgres import Database, Server
from tests.projections.making import random_pushes


def copy(server: Server, source: str, target: str) -> None:
    """Make the database `target` a copy of `source`; both lose their connections."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (source,))
        connection.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {target} TEMPLATE {source}")


@pytest.mark.xdist_group("kafka")
def test_events_of_the_lost_future_that_kafka_kept_are_left_out(
    database: Database, postgres_server: Server, kafka: KafkaSettings, tmp_path: Path
) -> None:
    """After backup, pushes, restore and other pushes at the same positions, Kafka still holds the lost pushes."""
    url = database.app_url
    with registry_over(database, tmp_path) as registry:
        with fed(url, kafka):
            wait_folded(url, random_pushes(registry, 1, 15))
        epoch = admin.status(url).epoch
    copy(postgres_server, database.name, "backup_of_it")
    with registry_over(database, tmp_path) as registry, fed(url, kafka):
        lost = random_pushes(registry, 2, 15)
        wait_folded(url, lost)
    copy(postgres_server, "backup_of_it", database.name)
    before = DISCARDED._value.get()
    with registry_over(database, tmp_path) as registry:
        assert registry.head_position() < lost
        with fed(url, kafka):
            head = random_pushes(registry, 3, 25)
            wait_folded(url, head)
            assert_right(url)
            assert admin.status(url).epoch > epoch
            assert_feed_right(url, kafka)
    assert DISCARDED._value.get() > before
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE backup_of_it")


def test_each_kind_of_restore_raises_the_epoch_once(database: Database, postgres_server: Server) -> None:
    """Another database, table, timeline or cluster raises it, and nothing else does."""
    epoch = schema.note_cluster(database.app_url)
    assert schema.note_cluster(database.app_url) == epoch
    copy(postgres_server, database.name, "backup_of_that")
    copy(postgres_server, "backup_of_that", database.name)
    assert schema.note_cluster(database.app_url) == epoch + 1
    assert schema.note_cluster(database.app_url) == epoch + 1
    with psycopg.connect(database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE log.es_log SET timeline = timeline + 1")
        assert schema.note_cluster(database.app_url) == epoch + 2
        connection.execute("UPDATE log.es_log SET system_identifier = '1'")
        assert schema.note_cluster(database.app_url) == epoch + 3
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE backup_of_that")
