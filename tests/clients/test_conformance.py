"""The OCI conformance suite, whole, with the projector running, not running, and paused and resumed at random."""

from pathlib import Path

import pytest

from .conformance import APIS, DATA, SPARSE_DATA_NAME, run_suite
from .programs import program
from .wire import Registry

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("conformance")]

TESTS_MIN = 900


def test_the_registry_passes_the_whole_suite(registry_in_each_mode: Registry, repository: str, tmp_path: Path) -> None:
    """Nothing fails, errs or is skipped; only the kind of data that is switched off is not tested."""
    suite = program("conformance", tmp_path / "home")
    results = run_suite(suite, registry_in_each_mode.host, repository, tmp_path / "suite")
    assert results.exit_code == 0, results.explain()
    assert (results.failures, results.errors, results.skipped, results.disabled) == (0, 0, 0, 0), results.explain()
    assert results.not_passed == (), results.explain()
    assert results.tests > TESTS_MIN
    assert results.capabilities.pop(SPARSE_DATA_NAME) == "Disabled"
    assert set(results.capabilities.values()) == {"Pass"}, results.explain()
    assert len(results.capabilities) >= len(APIS) + len(DATA) - 1


def test_our_switches_are_those_of_the_suite(registry: Registry, repository: str, tmp_path: Path) -> None:
    """A switch that the suite does not know would be ignored in silence: its own report names what is on."""
    suite = program("conformance", tmp_path / "home")
    run_suite(suite, registry.host, repository, tmp_path / "suite")
    report = (tmp_path / "suite" / "results" / "results.yaml").read_text()
    config = report.partition("\napis:")[0]
    assert config.count(": true\n") == len(APIS) + len(DATA) + len(["cacheAuth"])
    assert [line.strip() for line in config.splitlines() if line.endswith(": false")] == ["sparse: false"]
