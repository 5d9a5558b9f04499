"""Shows two runs side by side: `make bench-compare OLD.json NEW.json`.

A change is marked `*` if the slowest sample of one run is faster than the fastest of the other; a smaller change may
be chance. The peers are shown too: if their figures changed as well, the machine did.
"""

import sys
from pathlib import Path

from bench.registries.report import ABSENT, grid, number
from bench.registries.results import Results, RowResult, from_json


def compared(old: Results, new: Results) -> str:
    """The table of the rows and registries that both runs have measured."""
    registries = [each for each in old.registries if each in new.registries]
    header = ["Work", "unit"]
    for registry in registries:
        header += [registry, "then", "change"]
    lines = []
    for before in old.rows:
        after = new.row(before.key)
        if after is None:
            continue
        line = [before.name, before.unit]
        for registry in registries:
            line += [number(before.median(registry)), number(after.median(registry)), change(before, after, registry)]
        lines.append(line)
    return grid(header, lines) + "\n"


def change(before: RowResult, after: RowResult, registry: str) -> str:
    """The change of the medians in percent, marked where it is more than chance."""
    old, new = before.median(registry), after.median(registry)
    if not old or new is None:
        return ABSENT
    olds, news = ([each.rate for each in row.samples[registry]] for row in (before, after))
    apart = min(news) > max(olds) or max(news) < min(olds)
    return f"{(new / old - 1) * 100:+.0f} %{' *' if apart else '  '}"


def main() -> int:
    """Command line: two JSON files of `make bench`."""
    if len(sys.argv) != 3:
        print("usage: make bench-compare OLD.json NEW.json", file=sys.stderr)
        return 2
    try:
        old, new = (from_json(Path(each).read_text()) for each in sys.argv[1:])
    except OSError as problem:
        print(problem, file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError) as problem:
        print(f"not what `make bench` wrote: {problem}", file=sys.stderr)
        return 1
    print(compared(old, new), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
