"""The commands of one session that are not answered yet: one thread brings them and their data, another works on them.

They are worked on in the order in which they came. One whose data are not all there keeps those behind it waiting; one
that hangs (a fault made on purpose) keeps nobody, and stays until it is aborted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from tape.emulator.iscsi.task import Task
from tape.scsi.pdu import Disconnected


class TaskSet:
    """Of one session."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[int, Task] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, task: Task) -> None:
        """A command has come.

        Raises:
            Disconnected: one of this tag is not answered yet.
        """
        with self._changed:
            if task.tag in self._tasks:
                raise Disconnected(f"task {task.tag:#x} was begun twice")
            self._tasks[task.tag] = task
            self._changed.notify()

    def find(self, tag: int) -> Task | None:
        """The one that waits for data under this tag."""
        with self._changed:
            task = self._tasks.get(tag)
            return task if task is not None and not task.hanging else None

    def more_came(self) -> None:
        """Data have come for one of them."""
        with self._changed:
            self._changed.notify()

    def wants_data(self) -> Task | None:
        """The first that lacks some."""
        with self._changed:
            return next((task for task in self._tasks.values() if not task.whole), None)

    def next(self) -> Task | None:
        """The next to be worked on; waits for it. None when there will be none any more."""
        with self._changed:
            while not self._closed:
                first = next((task for task in self._tasks.values() if not task.hanging), None)
                if first is not None and first.whole:
                    return first
                self._changed.wait()
            return None

    def finish(self, task: Task) -> bool:
        """It was carried out; whether anybody still waits for the answer."""
        with self._changed:
            if self._tasks.get(task.tag) is not task:
                return False
            del self._tasks[task.tag]
            return True

    def abort(self, tag: int) -> bool:
        """Give one up; whether there was one."""
        with self._changed:
            self._changed.notify()
            return self._tasks.pop(tag, None) is not None

    def abort_all(self, lun: bytes | None = None) -> None:
        """Give all up, or all of one logical unit."""
        with self._changed:
            for tag in [tag for tag, task in self._tasks.items() if lun is None or task.lun == lun]:
                del self._tasks[tag]
            self._changed.notify()

    def close(self) -> None:
        """The session ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
