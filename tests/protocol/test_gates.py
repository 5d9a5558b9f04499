"""The gate lets in so many for each address and so many in all, and proxies are exempt from the first limit."""

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


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "unknown", False),
    ],
)
def test_a_network_of_ipv6_that_one_client_has_counts_as_one_address(
    first: str, second: str, *, together: bool
) -> None:
    gate = AddressGate(per_address_max=1, total_max=9)
    gate.enter(first)
    if together:
        with pytest.raises(TooMany):
            gate.enter(second)
    else:
        gate.enter(second)
        gate.leave(second)
    gate.leave(first)
    gate.enter(second)


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
