"""Linux's tape driver on an emulated drive: what of it ``StDrive`` has to get along with (drivers/scsi/st.c of 6.1).

A model, so that these tests need no kernel. The promises that are tried on it are tried on the driver itself by the
guest's tape suite; what differs between the two is a fault of this one.
"""

from __future__ import annotations

import errno
import os

from tape.emulator.drive import DriveLun
from tape.emulator.loop import LoopTransport
from tape.scsi import cdb
from tape.scsi.sense import Key, Sense, decode
from tape.scsi.transport import Buffer, Reply, Status
from tape.st.mtio import CLEAR, SET, Op, Option, State
from tape.st.mtio import Status as DriverStatus

_MARKS_BEFORE = {Op.REWIND, Op.UNLOAD, Op.SEEK, Op.SPACE_FILEMARKS_BACK}
_ALLOWED_AFTER_RESET = {Op.REWIND, Op.UNLOAD, Op.SEEK, Op.END_OF_DATA, Op.LOAD}
_KEEPS_WRITING = {Op.SET_BLOCK_LENGTH, Op.SET_OPTIONS, Op.SET_PARTITION}


class ModelledDriver:
    """One ``/dev/nst``. ``root`` says whether whoever has it open may set options."""

    name = "/dev/nst0"

    def __init__(self, lun: DriveLun, *, root: bool = True, options: Option = Option.ASYNC_WRITES) -> None:
        self._lun = lun
        self._transport = LoopTransport(lun)
        self._root = root
        self._options = options
        self._partition = self._wanted_partition = 0
        self._partitions = 1
        self._visited: dict[int, int] = {}
        self._writing = False
        self._warned = self._refused = self._behind_filemark = False
        self._lost = self._was_reset = False
        self._state = State(0)
        self.reopen()

    def reset(self) -> None:
        """A reset of this kernel's making: the driver knows, and so does the drive. It rewinds."""
        self._lun.rewound_by_reset()
        self._was_reset = True

    # ------------------------------------------------------------------ what StDrive sees

    @property
    def options(self) -> Option:
        return self._options

    def reopen(self) -> None:
        self.close()
        self._state = State(0)
        for _ in range(8):
            sense = self._sent(cdb.test_unit_ready())
            if sense is not None and sense.key == Key.UNIT_ATTENTION:
                self._lost, self._partition, self._wanted_partition, self._partitions = False, 0, 0, 1
                continue
            if sense is None:
                self._state = State.ONLINE
            elif sense.asc == 0x3A:
                self._state = State.NO_CARTRIDGE
            return

    def close(self) -> None:
        if self._writing and not self._lost:
            self._sent(cdb.write_filemarks(1))
        self._writing = False

    def status(self) -> DriverStatus:
        return DriverStatus(self._partition, self._state | (State.END_OF_TAPE if self._warned else State(0)))

    def block(self) -> int:
        self._hold_known()
        self._switch()
        answer = memoryview(bytearray(20))
        if self._sent(bytes((0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0)), data_in=answer) is not None:
            raise _failed(errno.EIO)
        return int.from_bytes(answer[4:8], "big")

    def read(self, buf: memoryview) -> int:
        self._hold_ready()
        self._switch()
        self._writing = False
        sense, length = self._answered(cdb.read(len(buf)), data_in=buf)
        behind, self._behind_filemark = self._behind_filemark, False
        if sense is None:
            return length
        if sense.filemark:
            self._behind_filemark = True
            return 0
        if sense.key == Key.BLANK_CHECK and behind:
            return 0
        if sense.ili and sense.information is not None:
            if sense.information <= 0:
                raise _failed(errno.ENOMEM)
            return len(buf) - sense.information
        raise _failed(errno.EIO)

    def write(self, block: Buffer) -> int:
        self._hold_ready()
        self._switch()
        if self._warned:
            self._warned, self._refused = False, True
            raise _failed(errno.ENOSPC)
        self._writing = True
        sense = self._sent(cdb.write(len(block)), data_out=block)
        was_refused, self._refused = self._refused, False
        if sense is None:
            self._warned = was_refused
            return len(block)
        if not sense.eom:
            raise _failed(errno.EACCES if sense.key == Key.DATA_PROTECT else errno.EIO)
        self._warned = True
        if sense.key == Key.VOLUME_OVERFLOW:
            raise _failed(errno.ENOSPC)
        return len(block)

    def operate(self, op: Op, count: int = 1) -> None:
        if op is Op.SET_OPTIONS and not self._root:
            raise _failed(errno.EPERM)
        if self._lost:
            if op not in _ALLOWED_AFTER_RESET:
                raise _failed(errno.EIO)
            self._lost = self._writing = False
            self._sent(cdb.read_position())  # it asks where the tape stands, and may be told of the reset only now
            self._was_reset = False
        elif self._writing and op in _MARKS_BEFORE and self._sent(cdb.write_filemarks(1)) is not None:
            raise _failed(errno.EIO)
        if op not in _KEEPS_WRITING:
            self._writing = False
        self._do(op, count)

    # ------------------------------------------------------------------ what it does

    def _do(self, op: Op, count: int) -> None:
        match op:
            case Op.SET_OPTIONS:
                chosen = Option(count & sum(Option))
                self._options = self._options | chosen if count & ~sum(Option) == SET else self._options & ~chosen
                assert count & ~sum(Option) in (SET, CLEAR), "one of two ways"
                return
            case Op.SET_PARTITION:
                self._partitions = 2 if self._lun.loaded.partitions == 2 else 1
                if count >= self._partitions:
                    raise _failed(errno.EINVAL)
                self._wanted_partition = count
                return
            case Op.SEEK:
                self._seek(count, self._wanted_partition)
                return
            case Op.MAKE_PARTITIONS:
                self._make_partitions()
                return
            case Op.LOAD:
                self._hold(self._sent(cdb.load_unload(load=True)))
                self.reopen()
                return
            case Op.UNLOAD:
                self._hold(self._sent(cdb.load_unload(load=False)))
                self._state = State.NO_CARTRIDGE
                return
            case Op.LOCK | Op.UNLOCK:
                self._hold(self._sent(cdb.prevent_removal(op is Op.LOCK)))
                return
        self._switch()
        commands = {
            Op.REWIND: cdb.rewind(),
            Op.WRITE_FILEMARKS: cdb.write_filemarks(count),
            Op.SPACE_FILEMARKS: cdb.space_filemarks(count),
            Op.SPACE_FILEMARKS_BACK: cdb.space_filemarks(-count),
            Op.END_OF_DATA: cdb.space_end_of_data(),
            Op.SET_BLOCK_LENGTH: cdb.test_unit_ready(),
        }
        sense = self._sent(commands[op])
        self._behind_filemark = op is Op.SPACE_FILEMARKS
        if op is Op.WRITE_FILEMARKS and sense is not None and sense.eom and sense.key == Key.NO_SENSE:
            sense = None  # written, and the warning kept to itself
        self._warned = self._refused = False
        self._hold(sense)

    def _make_partitions(self) -> None:
        self._partition = self._wanted_partition = 0
        self._hold(self._sent(cdb.locate(0, 0)))
        page = bytes((0x11, 10, 1, 1, 0x38, 3, 9, 0, 0, 1, 0xFF, 0xFF))
        self._hold(self._sent(cdb.mode_select(8 + len(page)), data_out=bytes(8) + page))
        self._hold(self._sent(cdb.format_medium(True)))

    def _seek(self, block: int, partition: int) -> None:
        if partition != self._partition:
            self._visited[self._partition] = self._lun.block
        self._warned = self._refused = self._behind_filemark = False
        self._hold(self._sent(cdb.locate(block, partition if partition != self._partition else None)))
        self._partition = partition

    def _switch(self) -> None:
        if self._wanted_partition != self._partition:
            self._seek(self._visited.get(self._wanted_partition, 0), self._wanted_partition)

    def _hold(self, sense: Sense | None) -> None:
        if sense is not None:
            raise _failed(errno.EIO)

    def _hold_known(self) -> None:
        if self._lost:
            raise _failed(errno.EIO)

    def _hold_ready(self) -> None:
        if State.ONLINE not in self._state:
            raise _failed(errno.ENOMEDIUM if State.NO_CARTRIDGE in self._state else errno.EIO)
        self._hold_known()

    def _sent(self, command: bytes, data_out: Buffer = b"", data_in: memoryview | None = None) -> Sense | None:
        return self._answered(command, data_out, data_in)[0]

    def _answered(
        self, command: bytes, data_out: Buffer = b"", data_in: memoryview | None = None
    ) -> tuple[Sense | None, int]:
        reply: Reply = self._transport.execute(command, data_out=data_out, data_in=data_in)
        if reply.status != Status.CHECK_CONDITION:
            return None, reply.transferred
        self._lost = self._lost or self._was_reset
        return decode(reply.sense), reply.transferred


def _failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))
