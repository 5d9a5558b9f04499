"""Runs the OCI conformance suite and reads its results."""

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .programs import Program

SUITE_SECONDS_MAX = 300
EXCERPT_CHARACTERS = 2500
MESSAGE_CHARACTERS = 300
NOT_PASSED_SHOWN = 60
EXCHANGES_SHOWN = 3

APIS = (
    *("PING", "PULL", "PUSH", "REFERRER"),
    *(f"BLOBS_{name}" for name in ("ATOMIC", "DELETE", "DIGEST_HEADER", "MOUNT_ANONYMOUS", "UPLOAD_CANCEL")),
    *(f"MANIFESTS_{name}" for name in ("ATOMIC", "DELETE", "DIGEST_HEADER", "TAG_PARAM")),
    *(f"TAGS_{name}" for name in ("ATOMIC", "DELETE", "LIST")),
)
DATA = (
    *("IMAGE", "INDEX", "INDEX_LIST", "NO_LAYERS", "NONDISTRIBUTABLE", "CUSTOM_FIELDS", "DATA_FIELD"),
    *("ARTIFACT", "ARTIFACT_LIST", "SUBJECT", "SUBJECT_LIST", "SUBJECT_MISSING", "EMPTY_BLOB", "SHA512"),
)
# A sparse manifest names blobs that nobody pushed: refusing it is what a registry should do.
SPARSE_DATA_NAME = "Sparse Manifests"


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the suite that did not pass."""

    name: str
    status: str
    message: str
    exchange: str


@dataclass(frozen=True, slots=True)
class Results:
    """The counts of the suite, and every case and capability that did not pass."""

    exit_code: int
    tests: int
    failures: int
    errors: int
    skipped: int
    disabled: int
    cases: int
    not_passed: tuple[Case, ...]
    capabilities: dict[str, str]

    def explain(self) -> str:
        """The failing names, with the request and answer of the first few."""
        lines = [
            f"exit {self.exit_code}; {self.tests} tests, {self.failures} failed, {self.errors} errors, "
            f"{self.skipped} skipped, {self.disabled} disabled"
        ]
        lines += [f"  {name}: {status}" for name, status in self.capabilities.items() if status != "Pass"]
        shown = self.not_passed[:NOT_PASSED_SHOWN]
        lines += [f"  {case.status}: {case.name}: {case.message[:MESSAGE_CHARACTERS]}" for case in shown]
        for case in shown[:EXCHANGES_SHOWN]:
            lines += ["", f"--- {case.name}", case.exchange[-EXCERPT_CHARACTERS:]]
        return "\n".join(lines)


def run_suite(program: Program, host: str, repository: str, folder: Path) -> Results:
    """Run the whole suite of the specification's development version, all switches on but SPARSE, in a fresh folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    switches = {
        "OCI_REGISTRY": host,
        "OCI_TLS": "disabled",
        "OCI_VERSION": "dev",
        "OCI_REPO1": f"{repository}/one",
        "OCI_REPO2": f"{repository}/two",
        "OCI_RESULTS_DIR": str(folder / "results"),
        **{f"OCI_API_{name}": "true" for name in APIS},
        **{f"OCI_DATA_{name}": "true" for name in DATA},
        "OCI_DATA_SPARSE": "false",
    }
    environment = {name: value for name, value in program.environment.items() if not name.startswith("OCI_")}
    told = Program(program.path, {**environment, **switches})
    outcome = told.attempt(cwd=folder, seconds_max=SUITE_SECONDS_MAX)
    assert (folder / "results" / "junit.xml").exists(), f"the suite left no results:\n{outcome.everything[-3000:]}"
    return read_results(folder / "results", outcome.code)


def read_results(folder: Path, exit_code: int) -> Results:
    """Read junit.xml (counts and cases) and results.yaml (one verdict per API and kind of data)."""
    # The suite has just written this file, so it is no stranger's XML.
    root = ElementTree.parse(folder / "junit.xml").getroot()
    suite = root.find("testsuite")
    assert suite is not None
    cases = list(suite.iter("testcase"))

    def count(name: str) -> int:
        return int(suite.get(name, "0"))

    return Results(
        exit_code=exit_code,
        tests=count("tests"),
        failures=count("failures"),
        errors=count("errors"),
        skipped=count("skipped"),
        disabled=count("disabled"),
        cases=len(cases),
        not_passed=tuple(
            Case(
                case.get("name", "").removeprefix("OCI Conformance Test/"),
                case.get("status", ""),
                (case.findtext("system-out") or "").strip(),
                (case.findtext("system-err") or "").strip(),
            )
            for case in cases
            if case.get("status") != "passed"
        ),
        capabilities=dict(_verdicts(folder / "results.yaml")),
    )


def _verdicts(file: Path) -> Iterator[tuple[str, str]]:
    """The ``name: verdict`` lines under ``apis:`` and ``data:`` of results.yaml, a file of two levels."""
    section = ""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if not line.startswith(" "):
            section = name
        elif section in {"apis", "data"} and not line.startswith("    "):
            yield name.strip(), value.strip().strip("\"'")
