"""In which order cartridges are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive.visits import visits
from vcbproxy.errors import IntegrityError

_CHAINS = st.lists(st.lists(st.sampled_from("ABC"), max_size=6), max_size=4)


def test_each_cartridge_once_where_that_can_be() -> None:
    assert visits([[("A", 1), ("B", 2)], [("C", 3), ("A", 4)]]) == [("C", [3]), ("A", [1, 4]), ("B", [2])]


def test_twice_where_it_must_be() -> None:
    assert visits([[("A", 1), ("B", 2), ("A", 3)]]) == [("A", [1]), ("B", [2]), ("A", [3])]


@given(_CHAINS)
def test_everything_is_read_once_and_in_its_order(chains: list[list[str]]) -> None:
    wanted = [[(barcode, (chain, at)) for at, barcode in enumerate(one)] for chain, one in enumerate(chains)]
    read = [(barcode, item) for barcode, items in visits(wanted) for item in items]
    assert sorted(read) == sorted(one for sequence in wanted for one in sequence)
    for sequence in wanted:
        places = [read.index(one) for one in sequence]
        assert places == sorted(places)


def test_what_builds_upon_itself_is_refused() -> None:
    with pytest.raises(IntegrityError, match="builds upon itself"):
        visits([[("A", 1), ("B", 2)], [("B", 2), ("A", 1)]])
