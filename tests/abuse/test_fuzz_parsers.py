"""Random bytes make no parser of clients' texts fail, but for the errors that it announces, or give a wrong result."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.abuse.fuzzing.documents import RAW_VALUES
from tests.abuse.fuzzing.parsers import corpus, one

SEED = 20261125
PROJECT = Path(__file__).parents[2]
TEXT_MAX_S = 1.0
GUIDED_S = 90


def mutated(chance: Random, text: bytes, other: bytes) -> bytes:
    """The text with one to three changes; its first byte, which names the parser, stays."""
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(1, len(text) + 1)
        end = min(len(text), at + chance.choice((0, 0, 1, 3, 50)))
        middle = chance.choice((b"", chance.randbytes(1), chance.choice(RAW_VALUES), other[1:], text[at:end] * 3))
        text = text[:at] + middle + text[end:]
    return text


def test_the_corpus_and_what_is_near_it_break_no_parser() -> None:
    """Each text is read within a second of work."""
    chance = Random(SEED)
    texts = corpus()
    for each in texts:
        one(each)
    for number in range(10_000):
        text = mutated(chance, chance.choice(texts), chance.choice(texts))
        started = time.thread_time()
        try:
            one(text)
        except Exception as problem:
            raise AssertionError(f"seed {SEED}, text {number}: {text[:2000]!r}") from problem
        assert time.thread_time() - started < TEXT_MAX_S, text[:2000]


@pytest.mark.slow
def test_no_bytes_that_reach_new_code_break_a_parser(tmp_path: Path) -> None:
    """Coverage guides the bytes to the same parsers; a fault is shown with the bytes that make it."""
    pytest.importorskip("atheris")
    for number, text in enumerate(corpus()):
        (tmp_path / f"{number:04}").write_bytes(text)
    found = subprocess.run(
        [
            *(sys.executable, "-m", "tests.abuse.fuzzing.guided", tmp_path, f"-max_total_time={GUIDED_S}"),
            *(
                f"-seed={SEED}",
                f"-artifact_prefix={tmp_path}/fault-",
                "-timeout=5",
                "-rss_limit_mb=512",
                "-max_len=8192",
            ),
        ],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    told = found.stderr.decode(errors="replace") + found.stdout.decode(errors="replace")
    print(told[-600:])
    faults = {each.name: each.read_bytes()[:4000] for each in tmp_path.glob("fault-*")}
    assert (found.returncode, faults) == (0, {}), told[-5000:]
