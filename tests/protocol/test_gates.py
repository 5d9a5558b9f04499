"""The gate of places: for each address, in all, and for proxies."""

import pytest

from protocol.gates import AddressGate, TooMany


def test_the_gate_caps_each_address_and_all_together() -> None:
    gate = AddressGate(per_address_max=2, total_max=3)
    with gate.inside("a"), gate.inside("a"):
        with pytest.raises(TooMany), gate.inside("a"):
            pass
        with gate.inside("b"), pytest.raises(TooMany), gate.inside("c"):
            pass
        with gate.inside("c"):
            pass
    with gate.inside("a"), gate.inside("a"), gate.inside("b"):
        pass


def test_the_gate_counts_down_when_what_is_inside_fails() -> None:
    gate = AddressGate(per_address_max=1, total_max=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), gate.inside("a"):
            raise ValueError("inside")


def test_an_address_that_is_exempt_has_only_the_limit_of_all() -> None:
    gate = AddressGate(per_address_max=1, total_max=3, exempt="proxy".__eq__)
    for _ in range(3):
        gate.enter("proxy")
    with pytest.raises(TooMany):
        gate.enter("proxy")
    gate.leave("proxy")
    gate.enter("a")
    gate.leave("proxy")
    with pytest.raises(TooMany):
        gate.enter("a")
    gate.enter("b")
