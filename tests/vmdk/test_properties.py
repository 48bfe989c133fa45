"""Properties: whatever the chain, reading it is laying its layers over each other, and its extents tile it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images import data, extents, over, read_over
from tests.vmdk.builders import chain
from vcbproxy.extent import Kind
from vcbproxy.vmdk.chain import open_disk

CELL = 8192
SIZE = 12


def layers(alphabet: str) -> st.SearchStrategy[str]:
    return st.text(alphabet=alphabet, min_size=SIZE, max_size=SIZE)


LINK = st.one_of(
    st.tuples(st.just("seSparse"), layers("ab0-")),
    st.tuples(st.just("vmfsSparse"), layers("cd-")),
)
BASE = st.tuples(st.sampled_from(["vmfs", "seSparse"]), layers("AB-"))


@settings(max_examples=60, deadline=None)
@given(st.lists(LINK, max_size=4), BASE, st.integers(0, 1000), st.data())
def test_reading_a_chain_is_laying_its_layers_over_each_other(links, base, seed, draw):
    stack = [*links, base]
    expected = over(*(text for _, text in stack))
    content = data(expected, CELL)
    with open_disk(chain(CELL, *stack, seed=seed), "vm/disk-0.vmdk") as disk:
        assert read_over(disk, 0, disk.size_bytes) == content
        found = list(disk.extents())
        assert found == extents(expected, CELL)
        for extent in found:
            if extent.kind is Kind.ZERO:
                assert not any(content[extent.start : extent.end])
        for _ in range(5):
            start = draw.draw(st.integers(0, len(content)))
            length = draw.draw(st.integers(0, len(content) - start))
            assert read_over(disk, start, length) == content[start : start + length]
