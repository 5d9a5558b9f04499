"""Pauses after failures, by a clock that the test moves."""

from projections.builds.pauses import Pauses


def test_pauses_double_up_to_the_longest_and_end_with_a_success() -> None:
    """Work that has not failed is tried at once."""
    now = 0.0
    pauses = Pauses(1.0, 5.0, lambda: now)
    lengths = []
    for _ in range(5):
        assert pauses.over("work")
        lengths.append(pauses.failed("work"))
        now += lengths[-1] - 0.1
        assert not pauses.over("work")
        assert pauses.over("other work")
        now += 0.1
    assert lengths == [1.0, 2.0, 4.0, 5.0, 5.0]
    pauses.succeeded("work")
    assert pauses.over("work")
    assert pauses.failed("work") == 1.0
