"""The proof that a disk stood still while it was copied: by what lies on its LUNs, then by the manager's word.

files, maps, locks again ──same──▶ snapshot ours, same files, VM on top of them? ──yes──▶ kept
│ only locks changed hands ──▶ the same question, and it must be answered
└ anything else ──▶ Changed
"""

from __future__ import annotations

from collections.abc import Callable

from vcbproxy.clock import Clock
from vcbproxy.errors import Changed, ManagerError, Relocked, SourceError
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.frozen import Now, look
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.source.vmdisk import VmDisk

SETTLE_S = 1.0  # what hosts had in their journals when the snapshot was made is in its place by then


class Standstill:
    """One VM's disks under one snapshot of ours, from its creation on. ``added``: disks that came after it."""

    def __init__(
        self,
        session: Session,
        vm: Vm,
        frozen: VmSnapshot,
        marker: Marker,
        clock: Clock,
        warn: Callable[[str], None],
    ) -> None:
        self.added: set[str] = set()
        self._session = session
        self._vm = vm
        self._frozen = frozen
        self._marker = marker
        self._clock = clock
        self._warn = warn
        self._since_s = clock.monotonic()
        self._unanswered = False

    def confirm(self, source: VmDisk, disk: Disk) -> None:
        """Prove it for one disk that was copied.

        The order matters: the snapshot that is found last held the files through all that was looked at before. A
        manager that is away has no say when even the locks are as they were: whoever writes to a file locks it first.

        Raises:
            Changed: it did not stand still, or nobody knows.
        """
        self._settle()
        relocked = False
        try:
            source.recheck()
        except Relocked:  # as when a VM changes host
            relocked = True
        now = self._asked(disk, needed=relocked)
        if now is None:
            return
        now.check(disk)
        for added in now.added():
            if added.key not in self.added:
                self.added.add(added.key)
                self._warn(f"{added.key} was added to the VM after its snapshot; it is not in this restore point")

    def explain(self, disk: Disk, error: SourceError) -> None:
        """Say whether a failed read has another cause: files that were moved or merged under us read as anything.

        Raises:
            Changed: so it is.
        """
        try:
            self._look().check(disk)
        except ManagerError as second:
            error.add_note(f"and whether it was moved meanwhile is not known: {second}")
        except Changed as cause:
            raise cause from error

    def anew(self, disk: Disk) -> Disk | None:
        """The disk by the files that the snapshot names for it now, to be read from its start; None: there are none."""
        named = self._look().frozen.get(disk.key)
        self._since_s = self._clock.monotonic()
        return named if named is not None and named.capacity_bytes == disk.capacity_bytes else None

    def _asked(self, disk: Disk, *, needed: bool) -> Now | None:
        """What the manager says; None when it is away and not needed. It is waited for once, not for every disk."""
        if not self._unanswered or needed:
            try:
                return self._look()
            except ManagerError as error:
                if needed or trouble_of(error) is not Trouble.CONNECTION:
                    raise
                self._unanswered = True
        self._warn(f"{disk.key}: its files and their locks are as they were; the manager does not answer to confirm it")
        return None

    def _look(self) -> Now:
        return look(self._session, self._vm, self._frozen, self._marker)

    def _settle(self) -> None:
        """Look again no sooner than the hosts' metadata have settled.

        A map read right after the snapshot may miss blocks that a host has allocated, but so far only journaled. By
        then it shows in the file descriptor, the second look differs, and the disk is read again.
        """
        left_s = self._since_s + SETTLE_S - self._clock.monotonic()
        if left_s > 0:
            self._clock.sleep(left_s)
