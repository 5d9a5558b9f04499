"""The parsers' targets driven by atheris, which is guided by the code that it reaches.

`python -m tests.abuse.fuzzing.guided CORPUS_FOLDER -max_total_time=60 -seed=1`: libFuzzer's options.
"""

import sys

import atheris

with atheris.instrument_imports(include=["domain", "protocol", "json"]):
    from tests.abuse.fuzzing.parsers import one

if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
