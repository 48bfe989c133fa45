"""What one check learns and another needs: the VMs that are meant, and how much they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.preflight import machines, storage
from jobs.preflight.result import Result, warning
from vcbproxy.config import San
from vcbproxy.errors import ConfigError
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm, VmSummary
from vcbproxy.san import discover
from vcbproxy.san.info import LunInfo
from vcbproxy.san.opened import OpenLuns
from vcbproxy.source.storage import Storage


@dataclass(slots=True)
class Seen:
    """Filled by the checks as they are made; what could not be learned stays empty."""

    chosen: list[VmSummary] = field(default_factory=list)
    vms: list[Vm] = field(default_factory=list)
    held_bytes: dict[str, int] = field(default_factory=dict)
    _luns: list[LunInfo] | None = None

    def luns(self, settings: San) -> list[LunInfo]:
        """The LUNs of this machine; looked for once.

        Raises:
            ConfigError: the images that stand for some are named wrongly.
        """
        if self._luns is None:
            self._luns = discover.listed(settings)
        return self._luns

    def look(self, session: Session, selectors: Sequence[str]) -> Iterator[Result]:
        """Which VMs are meant, and what they are."""
        self.chosen, said = machines.visible(session, selectors)
        yield from said
        yield from machines.connected(self.chosen)
        for told in inventory.details(session, [vm.moref for vm in self.chosen]):
            if isinstance(told, Vm):
                self.vms.append(told)
            else:
                yield warning("virtual machines", str(told), "a backup fails it")
        self.vms.sort(key=lambda vm: (vm.name, vm.moref))
        committed = overview.committed_bytes(session)
        for vm in self.vms:
            capacity = sum(disk.capacity_bytes for disk in vm.disks)
            self.held_bytes[vm.instance_uuid] = min(capacity, committed.get(vm.moref, capacity))

    def datastores(self, session: Session, settings: San, opened: OpenLuns) -> Iterator[Result]:
        """What they lie on, and which disks could not be read wherever they lie. Closes what is open in the end."""
        known = inventory.datastores(session)
        yield from storage.unknown_mounts(settings, known)
        with Storage(known, self._luns_if_any(settings), storage.mount_points(settings), opened) as place:
            yield from storage.datastores(place, known, self.vms)
            yield from machines.readable(self.vms, place)

    def _luns_if_any(self, settings: San) -> list[LunInfo]:
        """The LUNs; when images are named wrongly, that is said elsewhere, and here there are none."""
        try:
            return self.luns(settings)
        except ConfigError:
            return []
