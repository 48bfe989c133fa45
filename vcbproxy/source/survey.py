"""What lies on the LUNs this proxy sees: each is opened once, and its headers are read once.

In: LUNs. Out: a :class:`Survey`: the volumes, which part of which volume each LUN carries, which LUNs are copies, what
could not be read. Nothing here asks the manager, and no trouble with one LUN hides another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vcbproxy.errors import CannotOpen, SourceError
from vcbproxy.san import naa
from vcbproxy.san.info import LunInfo
from vcbproxy.san.opened import OpenLuns
from vcbproxy.vmfs import probe
from vcbproxy.vmfs.probe import Member, VolumeSet

COPY = "copy"
_AT_ONCE = 32
"""Hung LUNs cost one timeout for so many of them; more threads only make 256 good LUNs slower."""


@dataclass(slots=True)
class Survey:
    """What was found out about the LUNs.

    Attributes:
        luns: whole LUNs, as they were given.
        volumes: by label.
        spans: by a LUN's path: its volume, and which part of it lies there: ``1 of 2``, or ``copy``.
        twins: by a LUN's path: the other LUNs that carry the same part of the same volume.
        further: by a LUN's path, what lies in VMFS partitions behind its first.
        problems: by a LUN's path.
    """

    luns: list[LunInfo]
    volumes: list[VolumeSet] = field(default_factory=list)
    spans: dict[str, tuple[VolumeSet, str]] = field(default_factory=dict)
    twins: dict[str, list[LunInfo]] = field(default_factory=dict)
    further: dict[str, list[Member]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def look(luns: Sequence[LunInfo], partitions: Sequence[LunInfo] = (), opened: OpenLuns | None = None) -> Survey:
    """Probe each LUN for VMFS.

    Args:
        luns: whole LUNs.
        partitions: what udev knows of their partitions; spares a complaint about disks that hold something else.
        opened: opens them, and leaves them open for others; when not given, they are closed again.
    """
    survey = Survey(list(luns))
    by_device: dict[int, LunInfo] = {}
    members: list[Member] = []
    with contextlib.ExitStack() as stack:
        opener = opened or stack.enter_context(OpenLuns())
        for info, found in zip(luns, _probed(luns, opener), strict=True):
            match found:
                case CannotOpen() if _holds_something_else(info, partitions):
                    pass
                case SourceError():
                    survey.problems[info.path] = str(found)
                case [first, *further]:
                    members.append(first)
                    by_device[id(first.device)] = info
                    if further:
                        survey.further[info.path] = further
    survey.volumes = probe.volumes_of(members)
    for volume in survey.volumes:
        _note(survey, volume, by_device)
    return survey


def _probed(luns: Sequence[LunInfo], opener: OpenLuns) -> list[list[Member] | SourceError]:
    """What is on each LUN, or why it cannot be told. Those that hang are waited for together, not one after another."""

    def one(info: LunInfo) -> list[Member] | SourceError:
        try:
            return probe.all_on(opener.get(info))
        except SourceError as error:
            return error

    if len(luns) < 2:
        return [one(info) for info in luns]
    with ThreadPoolExecutor(min(len(luns), _AT_ONCE), thread_name_prefix="survey") as pool:
        try:
            return list(pool.map(one, luns))
        except BaseException:  # Ctrl-C: let go of what hangs, so that the pool can end
            pool.shutdown(wait=False, cancel_futures=True)
            opener.patience.interrupt()
            raise


def _note(survey: Survey, volume: VolumeSet, by_device: dict[int, LunInfo]) -> None:
    """Say of each LUN of a volume which part of it it carries, and whether another carries the same."""
    for number, part in enumerate(volume.members, 1):
        same = [part, *(other for other in volume.duplicates if other.first_byte == part.first_byte)]
        infos = [by_device[id(member.device)] for member in same]
        span = f"{number if not volume.missing or part.is_first else '?'} of {volume.devices}"
        original = _original(infos, volume, number)
        for info in infos:
            survey.spans[info.path] = (volume, span if len(infos) == 1 or info is original else COPY)
            if len(infos) > 1:
                survey.twins[info.path] = [other for other in infos if other is not info]
            if len(infos) > 1 and info is not original:
                others = original.path if original else ", ".join(other.path for other in infos if other is not info)
                survey.problems[info.path] = (
                    f"carries the same part of volume {volume.label or volume.lvm_uuid} as {others}; unmap the copy"
                )


def _original(twins: Sequence[LunInfo], volume: VolumeSet, number: int) -> LunInfo | None:
    """The one on which the volume was made: its first device has written down the names of all. None: nobody knows."""
    names = dict(enumerate(volume.device_names, 1))
    if volume.missing or not names.get(number):
        return None
    named = [info for info in twins if info.wwn and info.wwn == naa.bare(names[number])]
    return named[0] if len(named) == 1 else None


def _holds_something_else(info: LunInfo, known: Sequence[LunInfo]) -> bool:
    """Whether udev found something other than VMFS: a disk of this machine that the backup need not be let at."""
    contents = [part.content or part.partition_type for part in known if part.partition_of == info.path]
    contents += [info.content] if info.content else []
    vmfs = ("VMFS", "aa31e02a-400f-11db-9590-000c2911d1b8", "0xfb")
    return bool(contents) and all(content and not content.startswith(vmfs) for content in contents)
