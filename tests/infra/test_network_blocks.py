"""Subnets are cut out of the network's own addresses and never overlap."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.network import subnet_blocks


@given(st.integers(0, 255), st.integers(16, 24), st.integers(1, 16))
def test_subnets_lie_inside_their_network_apart_from_each_other_and_are_large_enough_for_aws(
    second: int, prefix: int, count: int
) -> None:
    network = ipaddress.IPv4Network(f"10.{second}.0.0/{prefix}")
    blocks = [ipaddress.IPv4Network(block) for block in subnet_blocks(str(network), count)]
    assert len(blocks) == count
    assert all(block.subnet_of(network) and block.prefixlen <= 28 for block in blocks)
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)


def test_more_subnets_than_sixteen_are_refused() -> None:
    with pytest.raises(ValueError, match="holds 16 subnets"):
        subnet_blocks("10.0.0.0/16", 17)
