"""Feeds the targets of parsers.py by atheris, which is guided by the code that its bytes reach.

The options are libFuzzer's: `python -m tests.abuse.fuzzing.guided CORPUS_FOLDER -max_total_time=60 -seed=1`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["domain", "protocol", "json"]):
    from tests.abuse.fuzzing.parsers import one

if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
