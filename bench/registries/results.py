"""The results of a run of the bench, as data and as JSON."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one row against one registry: times in milliseconds, `rate` in the unit of the row.

    `cpu_s_per_1000` and `pss_bytes` are those of all processes of the registry, `load_cpu_s_per_1000` the load's own;
    `other_rate` is that of what was done beside (pushes while GETs were measured).
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
    """One row: its samples by registry, and by name what the same work costs without one (in the same unit).

    For the goals see rows.py.
    """

    key: str
    name: str
    unit: str
    goals: Mapping[str, float] = field(default_factory=dict)
    cpu_goals: Mapping[str, float] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    limits: dict[str, list[float]] = field(default_factory=dict)

    def errors(self, registry: str) -> int:
        """Errors of all runs; any voids the figures."""
        return sum(each.errors for each in self.samples.get(registry, []))

    def median(self, registry: str, of: Callable[[Sample], float] = lambda each: each.rate) -> float | None:
        """The median over the runs; None where nothing was measured or errors void it."""
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
        """The rate of a registry as a part of what was measured without one."""
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
        """For `from_json`."""
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
