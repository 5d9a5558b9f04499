"""The OCI conformance suite, whole, with the projector running, not running, and paused and resumed at random."""

import socket
import threading
from pathlib import Path

import pytest

from tests.feed.running import assert_right
from tests.folded import wait_folded
from tests.kafka import Broker
from tests.servers import assert_fed_by_kafka, serving

from .conformance import APIS, DATA, SPARSE_DATA_NAME, Results, run_suite
from .programs import program
from .wire import Registry

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("conformance")]

TESTS_MIN = 900


def test_the_registry_passes_the_whole_suite(
    request: pytest.FixtureRequest, registry_in_each_mode: Registry, repository: str, tmp_path: Path
) -> None:
    """No test fails or is skipped, but for the one kind of data that is switched off."""
    suite = program("conformance", tmp_path / "home")
    results = run_suite(suite, registry_in_each_mode.host, repository, tmp_path / "suite")
    assert_passed(results)
    if "[kafka]" in request.node.name:
        assert_fed_by_kafka(registry_in_each_mode.host)


def assert_passed(results: Results) -> None:
    """Check that the whole suite has passed."""
    assert results.exit_code == 0, results.explain()
    assert (results.failures, results.errors, results.skipped, results.disabled) == (0, 0, 0, 0), results.explain()
    assert results.not_passed == (), results.explain()
    assert results.tests > TESTS_MIN
    assert results.capabilities.pop(SPARSE_DATA_NAME) == "Disabled"
    assert set(results.capabilities.values()) == {"Pass"}, results.explain()
    assert len(results.capabilities) >= len(APIS) + len(DATA) - 1


def test_the_suite_passes_while_the_broker_is_killed(
    broker: Broker, topic_prefix: str, repository: str, tmp_path: Path
) -> None:
    """The broker is killed half-way, and the store gives the events that Kafka no longer brings."""
    suite = program("conformance", tmp_path / "home")
    with serving(None, "--kafka", broker.bootstrap, "--kafka-topic-prefix", topic_prefix) as running:
        killer = threading.Timer(2.0, broker.kill)
        killer.start()
        results = run_suite(suite, running.host, repository, tmp_path / "suite")
        killer.join()
        assert_passed(results)
        wait_folded(running.database_url)
        assert_right(running.database_url)
        assert running.metrics()['tagtrail_feed_events_total{source="store"}'] > 0


def test_the_suite_passes_with_a_broker_that_never_was(repository: str, tmp_path: Path) -> None:
    """The store gives all events if Kafka gives none."""
    suite = program("conformance", tmp_path / "home")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with serving(None, "--kafka", f"127.0.0.1:{held.getsockname()[1]}") as running:
            assert_passed(run_suite(suite, running.host, repository, tmp_path / "suite"))
            wait_folded(running.database_url)
            assert_right(running.database_url)


def test_our_switches_are_those_of_the_suite(registry: Registry, repository: str, tmp_path: Path) -> None:
    """A switch that the suite does not know would be ignored in silence: its own report names what is on."""
    suite = program("conformance", tmp_path / "home")
    run_suite(suite, registry.host, repository, tmp_path / "suite")
    report = (tmp_path / "suite" / "results" / "results.yaml").read_text()
    config = report.partition("\napis:")[0]
    assert config.count(": true\n") == len(APIS) + len(DATA) + len(["cacheAuth"])
    assert [line.strip() for line in config.splitlines() if line.endswith(": false")] == ["sparse: false"]
