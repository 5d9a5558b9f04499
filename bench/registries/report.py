"""Writes the table of a run: a line for each row with ours, the peers and our ratio to each, and the limits."""

import statistics
from collections.abc import Sequence

from bench.registries.peers import OURS
from bench.registries.results import Results, RowResult

VOID = "void"
ABSENT = "-"
MIB = 1 << 20


def number(value: float | None) -> str:
    """A figure with three digits that matter, large ones with a comma for thousands; a dash for none."""
    if value is None:
        return ABSENT
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def table(results: Results) -> str:
    """The whole report in Markdown."""
    parts = [_about(results), "", grid(_header(results), [_line(results, row) for row in results.rows])]
    parts += ["", grid(["CPU s per 1,000 / PSS MiB", *results.registries], _costs(results))]
    notes = [*_cpu_notes(results), *_load_notes(results), *_quiet_note(results), *_error_notes(results)]
    return "\n".join([*parts, "", *notes]) + "\n"


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]

    def drawn(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([drawn(header), f"|{rule}|", *map(drawn, lines)])


def _about(results: Results) -> str:
    return "\n".join(f"{name}: {value}" for name, value in results.about.items())


def _header(results: Results) -> list[str]:
    header = ["Work", "unit", OURS, "p99 ms"]
    for peer in _peers(results):
        header += [peer, "p99 ms", "ratio"]
    return [*header, "without us"]


def _line(results: Results, row: RowResult) -> list[str]:
    line = [row.name, row.unit, *_figures(row, OURS)]
    for peer in _peers(results):
        line += [*_figures(row, peer), _judged(row.ratio(OURS, peer), row.goals.get(peer))]
    limits = ", ".join(_limit(row, name, values) for name, values in row.limits.items() if values)
    return [*line, limits or ABSENT]


def _limit(row: RowResult, name: str, values: list[float]) -> str:
    text = f"{name} {number(statistics.median(values))}"
    goal = row.goals.get(name)
    return text if goal is None else f"{text} ({_judged(row.limit_ratio(OURS, name), goal)})"


def _figures(row: RowResult, registry: str) -> list[str]:
    if row.errors(registry):
        return [VOID, VOID]
    return [number(row.median(registry)), number(row.median(registry, lambda each: each.p99_ms))]


def _judged(ratio: float | None, goal: float | None) -> str:
    """A ratio, with its goal and the word "met" or "missed" if there is one."""
    if ratio is None:
        return ABSENT
    if goal is None:
        return f"{number(ratio)}x"
    return f"{number(ratio)}x of {goal:g}x {'met' if ratio >= goal else 'missed'}"


def _costs(results: Results) -> list[list[str]]:
    idle = ["idle", *(f"{ABSENT} / {results.idle_pss_bytes.get(each, 0) / MIB:.0f}" for each in results.registries)]
    lines = [idle]
    for row in results.rows:
        line = [row.name]
        for registry in results.registries:
            cpu, pss = (
                row.median(registry, of) for of in (lambda each: each.cpu_s_per_1000, lambda each: each.pss_bytes)
            )
            line.append(ABSENT if cpu is None or pss is None else f"{number(cpu)} / {pss / MIB:.0f}")
        lines.append(line)
    return lines


def _cpu_notes(results: Results) -> list[str]:
    """A sentence for each goal of processor time: ours, of all processes together, divided by the peer's."""
    notes = []
    for row in results.rows:
        for peer, goal in row.cpu_goals.items():
            ratio = row.cpu_ratio(OURS, peer)
            if ratio is not None:
                verdict = "met" if ratio <= goal else "missed"
                notes.append(
                    f"{row.name}: {number(ratio)}x the processor time of {peer} (at most {goal:g}x: {verdict})"
                )
    return notes


def _load_notes(results: Results) -> list[str]:
    """A sentence for each row in which the load program was so busy that a faster registry would look no faster."""
    notes = []
    for row in results.rows:
        rate, cpu = row.median(OURS), row.median(OURS, lambda each: each.load_cpu_s_per_1000)
        if row.unit == "/s" and rate is not None and cpu is not None and rate * cpu / 1000 > 0.9:
            notes.append(f"{row.name}: the load used {rate * cpu / 1000:.2f} of its one processor; ours may be faster")
    return notes


def quiet_share(results: Results) -> float | None:
    """The rate of GETs beside pushes, for each processor that the pushes leave free, divided by the rate of GETs of a
    quiet registry for each processor.

    The processor time of a push, of the registry and of the load, is taken from the row of pushes alone.
    """
    quiet, beside, pushes = (results.row(key) for key in ("manifest-tag", "get-while-push", "push-small"))
    if quiet is None or beside is None or pushes is None:
        return None
    rate, quiet_rate = beside.median(OURS), quiet.median(OURS)
    pushed = beside.median(OURS, lambda each: each.other_rate)
    cpu = pushes.median(OURS, lambda each: each.cpu_s_per_1000 + each.load_cpu_s_per_1000)
    if rate is None or not quiet_rate or pushed is None or cpu is None:
        return None
    left = results.cpus - pushed * cpu / 1000
    return (rate / left) / (quiet_rate / results.cpus) if left > 0 else None


def _quiet_note(results: Results) -> list[str]:
    share = quiet_share(results)
    row = results.row("get-while-push")
    if row is None or share is None:
        return []
    pushed = number(row.median(OURS, lambda each: each.other_rate))
    return [
        f"{row.name}: {share:.2f} of our quiet figure per CPU left by {pushed} pushes/s beside (goal 0.7), "
        f"p99 {number(row.median(OURS, lambda each: each.p99_ms))} ms (goal under 20)"
    ]


def _error_notes(results: Results) -> list[str]:
    notes = []
    for row in results.rows:
        for registry in results.registries:
            if errors := row.errors(registry):
                first = next(each.first_error for each in row.samples[registry] if each.errors)
                notes.append(f"{row.name}, {registry}: {errors} errors, so void: {first}")
    return notes or ["errors: none"]


def _peers(results: Results) -> list[str]:
    return [each for each in results.registries if each != OURS]
