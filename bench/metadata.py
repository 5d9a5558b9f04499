"""Measures the largest metadata that is accepted: `python bench/metadata.py [SHARE]`.

Pushes 2,000 manifests of 4 MiB to `tagtrail serve`, of which 1,000 are referrers of one subject and 20 name as many
things as fit, and an index of 1,000 children; SHARE (default 1) takes a part of all that. Prints how long the pushes,
folding and verifying took, how long pages of referrers took from the tail alone and from the read models, and the most
memory (PSS) of a process of each kind. The goals are 200 MB a process and 250 ms a page.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from projections.builds.verify import verify
from tests.abuse.memory import watching
from tests.abuse.metadata import Amount, Pages, push_all, read_all
from tests.abuse.test_large_metadata import LEVEL_S, LONG, without_projector
from tests.servers import serving, wait_level


def told(what: str, pages: Pages) -> None:
    """Print how many pages of referrers there were, how large, and how long they took."""
    took = sorted(1000 * each for each in pages.took)
    print(
        f"{what}: {len(pages.digests)} referrers on {len(took)} pages of up to {max(pages.sizes) / 1e6:.1f} MB,"
        f" median {statistics.median(took):.0f} ms, 95% {took[int(0.95 * (len(took) - 1))]:.0f} ms,"
        f" longest {took[-1]:.0f} ms",
        flush=True,
    )


def main() -> None:
    """Push without a projector, read, let the projector fold, read again, verify."""
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    amount = Amount(*(max(1, int(share * each)) for each in (LONG.referrers, LONG.others, LONG.wide, LONG.children)))
    print(amount, flush=True)
    with serving() as server, watching(server) as memory:
        with without_projector(server):
            began = time.perf_counter()
            push_all(server, amount)
            print(f"pushed in {time.perf_counter() - began:.0f} s; {memory}", flush=True)
            told("from the tail", read_all(server, amount))
        began = time.perf_counter()
        wait_level(server.host, LEVEL_S)
        print(f"folded in {time.perf_counter() - began:.0f} s; {memory}", flush=True)
        told("from the read models", read_all(server, amount))
        began = time.perf_counter()
        equal = all(each.equal for each in verify(server.database_url))
        print(f"verified in {time.perf_counter() - began:.0f} s: {'equal' if equal else 'NOT EQUAL'}; {memory}")


if __name__ == "__main__":
    main()
