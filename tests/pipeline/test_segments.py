"""The plan: what is read, what is wiped, what is left alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline.disks import GRANULE
from vcbproxy.extent import Extent, Kind, merged
from vcbproxy.pipeline import segments
from vcbproxy.pipeline.segments import Gap, Segment

G = GRANULE


def extents(drawing: str, step: int = G) -> list[Extent]:
    """``"D-"``: data, zeroes; each letter one ``step``."""
    kinds = {"D": Kind.DATA, "-": Kind.ZERO}
    return list(merged(Extent(at * step, step, kinds[letter]) for at, letter in enumerate(drawing)))


def plan(drawing: str, segment: int = 4, gap: int = 2) -> str:
    """The plan drawn: ``[D-D]`` a segment and its fills, ``..`` a gap."""
    drawn = ""
    for step in segments.plan(extents(drawing), len(drawing) * G, segment * G, gap * G):
        if isinstance(step, Gap):
            drawn += "." * (step.length // G)
        else:
            fills = "".join(("D" if f.kind is Kind.DATA else "-") * (f.length // G) for f in step.fills)
            drawn += f"[{fills}]"
    return drawn


def test_segments_end_at_their_multiples_and_at_gaps() -> None:
    assert plan("") == ""
    assert plan("DDDD") == "[DDDD]"
    assert plan("DDDDDD") == "[DDDD][DD]"
    assert plan("D-DDDD") == "[D-DD][DD]"
    assert plan("--DDDD") == "..[DD][DD]"
    assert plan("D---DD") == "[D]...[DD]"
    assert plan("DDDDD-") == "[DDDD][D-]"
    assert plan("------") == "......"


def test_gaps_lie_on_granules_and_their_fringes_are_wiped() -> None:
    half = G // 2
    drawn = list(segments.plan(extents("D-----D-", half), 8 * half, 8 * G, 2 * G))
    assert drawn == [
        Segment(0, G, (Extent(0, half, Kind.DATA), Extent(half, half, Kind.ZERO))),
        Gap(G, 2 * G),
        Segment(3 * G, G, (Extent(6 * half, half, Kind.DATA), Extent(7 * half, half, Kind.ZERO))),
    ]


def test_a_gap_may_end_with_the_disk_wherever_that_is() -> None:
    size = 3 * G + 512
    found = [Extent(0, G, Kind.DATA), Extent(G, size - G, Kind.ZERO)]
    assert list(segments.plan(found, size, 8 * G, 2 * G))[-1] == Gap(G, size - G)


@settings(max_examples=100, deadline=None)
@given(st.text("D-", max_size=60), st.sampled_from([512, 4096, 20480, G]), st.integers(1, 4), st.integers(1, 4))
def test_the_plan_tiles_the_disk(drawing: str, step: int, segment: int, gap: int) -> None:
    kinds = extents(drawing, step)
    position = 0
    for part in segments.plan(kinds, len(drawing) * step, segment * G, gap * G):
        assert part.start == position
        assert part.start % G == 0
        position += part.length
        if isinstance(part, Gap):
            assert part.length >= gap * G
            assert any(k.kind is Kind.ZERO and k.start <= part.start and position <= k.end for k in kinds)
            continue
        assert part.length <= segment * G
        at = part.start
        for fill in part.fills:
            assert fill.start == at
            assert any(k.kind is fill.kind and k.start <= at and fill.end <= k.end for k in kinds)
            at = fill.end
        assert at == position
    assert position == len(drawing) * step
