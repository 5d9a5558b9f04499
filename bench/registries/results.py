"""Holds the results of a run of the bench, and writes and reads them as JSON."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one row of one registry: times in milliseconds, `rate` in the unit of the row.

    `cpu_s_per_1000` (processor seconds for 1,000 requests or images) and `pss_bytes` are those of all processes of the
    registry, `load_cpu_s_per_1000` is that of the load program. `other_rate` is the rate of the work that was done
    beside: pushes while GETs were measured.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_s_per_1000: float
    load_cpu_s_per_1000: float
    pss_bytes: int
    first_error: str = ""
    other_rate: float = 0.0


@dataclass(slots=True)
class RowResult:
    """One row: its samples by registry, and the samples of its limits by name, in the same unit.

    The goals are explained at `Row` in rows.py.
    """

    key: str
    name: str
    unit: str
    goals: Mapping[str, float] = field(default_factory=dict)
    cpu_goals: Mapping[str, float] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    limits: dict[str, list[float]] = field(default_factory=dict)

    def errors(self, registry: str) -> int:
        """The number of errors in all samples of a registry; a single one voids its figures."""
        return sum(each.errors for each in self.samples.get(registry, []))

    def median(self, registry: str, of: Callable[[Sample], float] = lambda each: each.rate) -> float | None:
        """The median of the samples; None if nothing was measured or errors void it."""
        samples = self.samples.get(registry)
        return statistics.median(map(of, samples)) if samples and not self.errors(registry) else None

    def ratio(self, registry: str, peer: str) -> float | None:
        """The speed of a registry divided by that of the peer."""
        mine, other = self.median(registry), self.median(peer)
        return mine / other if mine is not None and other else None

    def cpu_ratio(self, registry: str, peer: str) -> float | None:
        """The processor time of a registry divided by that of the peer."""
        mine, other = (self.median(each, lambda sample: sample.cpu_s_per_1000) for each in (registry, peer))
        return mine / other if mine is not None and other else None

    def limit_ratio(self, registry: str, limit: str) -> float | None:
        """The rate of a registry divided by a limit of this row."""
        mine, values = self.median(registry), self.limits.get(limit)
        return mine / statistics.median(values) if mine is not None and values else None


@dataclass(slots=True)
class Results:
    """A whole run. `about` says where and how it was made."""

    about: dict[str, str]
    cpus: int
    registries: list[str]
    idle_pss_bytes: dict[str, int]
    rows: list[RowResult] = field(default_factory=list)

    def row(self, key: str) -> RowResult | None:
        """The row of this key, if it was measured."""
        return next((each for each in self.rows if each.key == key), None)

    def to_json(self) -> str:
        """The results as text that `from_json` reads."""
        return json.dumps(asdict(self), indent=1)


def from_json(text: str) -> Results:
    """The results that `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    found: dict[str, Any] = json.loads(text)
    return Results(**{**found, "rows": [_row(each) for each in found["rows"]]})


def _row(found: Mapping[str, Any]) -> RowResult:
    # In earlier runs a row had one goal for itself; now it has one for each registry that it is compared with.
    known = {name: value for name, value in found.items() if name != "goal"}
    samples = {name: [Sample(**one) for one in each] for name, each in found["samples"].items()}
    return RowResult(**{**known, "samples": samples})
