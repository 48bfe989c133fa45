"""An incremental: the base's list of chunks, with those spliced in that changed.

    base      ═══════╪══╪═══════════════╪══╪══════     kept, by array operations
    fresh            └──┘               └──┘           read, cut, digested, stored: around what changed
    new       ═══════╪══╪═══════════════╪══╪══════     equal, id by id, to what a full copy would have found

That holds as far as the changed areas tell the truth, which is not for us to know: ``audit.py`` holds a sample of what
was kept against the disk, and what is read around a change is held against the base as well (``DiskContent.untold``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vcbproxy.device import MappedDevice
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.backup import Copy, DiskSink, Fresh, Kept, Options, Progress, no_progress
from vcbproxy.pipeline.base import Base, Layout
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.pipeline.crew import Cancel, Crew, Interrupt
from vcbproxy.pipeline.regions import Splice
from vcbproxy.repository.vouched import TakenOver

_ALL_OF_IT = Options()


def copy_changes(
    source: MappedDevice,
    base: Base,
    changed: Areas,
    sink: DiskSink,
    rule: Rule,
    *,
    options: Options = _ALL_OF_IT,
    progress: Callable[[Progress], None] = no_progress,
    cancel: Cancel | None = None,
    interrupt: Interrupt | None = None,
) -> DiskContent:
    """Store what changed of a disk since its base; return what the disk consists of, kept chunks and all.

    Args:
        source: the disk as it is now.
        base: its chunks as they were, cut by ``rule``; all are in the target already, but for the lost ones.
        changed: all that may differ since.
        sink: gives one packer for each worker.
        rule: where to cut.
        options: workers and memory.
        progress: called by this thread, for every segment.
        cancel: looked at a few times a second.
        interrupt: called when the copy ends early: makes a read of ``source`` that hangs come back, with an error.

    Raises:
        IntegrityError: the base is not a list of this disk's size, or was cut by another rule.
        SourceError: the disk could not be read.
        Error: whatever the target raises.
        Cancelled: ``cancel`` was set.
    """
    assert changed.size_bytes == source.size_bytes, "the changed areas are those of another disk"
    reread = changed | base.lost_areas(source.size_bytes)
    splice = Splice(Layout(base, source.size_bytes, rule), reread, source, rule)
    with Crew("copy", cancel, interrupt) as crew:
        copy = Copy(source, sink, rule, options, crew, splice.known_id)
        content = copy.run(_parts(splice), progress)
    taken_over = None if base.vouched is None else TakenOver(base.vouched, copy.taken_over)
    return replace(content, taken_over=taken_over, untold=tuple(sorted(copy.untold)))


def _parts(splice: Splice) -> Iterator[Fresh | Kept]:
    """What is kept and what is fresh, by turns."""
    row = 0
    for region in splice.regions():
        yield from _kept(splice.layout, row, region.row_first)
        yield Fresh(region.stretch, splice.extents(region))
        row = region.row_behind
    yield from _kept(splice.layout, row, len(splice.layout))


def _kept(layout: Layout, first: int, behind: int) -> Iterator[Kept]:
    if first < behind:
        ids, lengths = layout.base.ids[first:behind], layout.base.lengths[first:behind]
        yield Kept(first, ids, lengths, int(layout.edges[behind]), layout.hole_bytes(first, behind))
