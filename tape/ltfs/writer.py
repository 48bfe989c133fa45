"""One file on its way to the end of a volume's data, in full blocks but for the last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from tape.errors import FormatError, VolumeOverflow
from tape.ltfs.index import DIGEST, Extent, File, Pointer, Times
from tape.ltfs.recording import Recording
from tape.ltfs.verify import checksum, checksums
from tape.scsi.transport import Buffer

_XATTR_BYTES_MAX = 4096  # the reference implementation's limit


class FileWriter:
    """One file while it is written: by ``write``, which takes pieces of any size, or by ``put``, block by block."""

    def __init__(
        self,
        recording: Recording,
        name: str,
        done: Callable[[File | None, Iterable[int]], None],
        now_ns: Callable[[], int],
        *,
        closing: bool,
        verify: bool,
    ) -> None:
        """Use ``LtfsVolume.create``.

        Args:
            recording: to whose end it goes.
            name: of the file.
            done: told once of the file, if there is one, and of the checksums of its blocks, if they are kept.
            now_ns: the time, in nanoseconds since 1970.
            closing: whether it may use the room that is kept for such files.
            verify: whether checksums of its blocks are kept.
        """
        self._recording = recording
        self._name = name
        self._told = done
        self._now_ns = now_ns
        self._closing = closing
        self._verify = verify
        self._began_ns = now_ns()
        self._held = bytearray()
        self._digest = hashlib.sha256()
        self._digested = 0
        self._kept = checksums()
        self._start = recording.data_end
        self._written = 0
        self._done = False
        self.seat = recording.seat
        self.block_bytes = recording.layout.label.block_bytes
        """The length of all blocks but the last."""

    @property
    def length(self) -> int:
        """How many bytes were taken so far."""
        return self._written + len(self._held)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self._name} on volume {self._recording.layout.label.volume_uuid}"

    @property
    def full(self) -> bool:
        """Whether no more should be written to it: the volume is full, or for a closing file even its reserve is."""
        recording = self._recording
        return recording.full and not (self._closing and recording.room.closing_bytes > len(self._held))

    def write(self, data: Buffer) -> int:
        """Take bytes; how many were taken. Fewer than given: the volume is full, and the file ends here.

        Raises:
            TapeError: it could not be written; the file is lost, what was committed is not.
        """
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view) and not self.full:
            if not self._held and len(view) - taken >= self.block_bytes:
                if not self.put(view[taken : taken + self.block_bytes]):
                    break
                taken += self.block_bytes
                continue
            piece = view[taken : taken + self.block_bytes - len(self._held)]
            self._held += piece
            taken += len(piece)
            if len(self._held) == self.block_bytes and not self._flush_held():
                taken -= len(piece)
                del self._held[len(self._held) - len(piece) :]
                break
        self._digest.update(view[:taken])
        self._digested += taken
        return taken

    def put(self, block: Buffer) -> bool:
        """Write one block as it is: all are full, but for the file's last. Whether it found room.

        Raises:
            TapeError: it could not be written; the file is lost, what was committed is not.
        """
        assert self._written % self.block_bytes == 0, "a block behind the file's last"
        if not self._recording.append(block):
            return False
        self._written += len(block)
        if self._verify:
            self._kept.append(checksum(block))
        return True

    def finish(self, xattrs: Mapping[str, bytes] | None = None) -> File:
        """The file is complete; safe with the next commit. It bears a digest if all of it came by ``write``.

        Raises:
            FormatError: an attribute that other implementations would not read; there is no file.
            VolumeOverflow: the last bytes that ``write`` took found no room; there is no file.
            TapeError: it could not be written.
        """
        assert not self._done, "finished twice"
        self._hold_readable(xattrs or {})
        if self._held and not self._flush_held():
            self.abort()
            raise VolumeOverflow(
                device=self._recording.drive.name, command="write", reason="no room for the file's last block",
                key=0xD, asc=0, ascq=2,
            )  # fmt: skip
        times = Times(self._began_ns, now := self._now_ns(), now, now, self._began_ns)
        extents: tuple[Extent, ...] = ()
        if self._written:
            pointer = Pointer(self._recording.layout.label.data_partition, self._start)
            extents = (Extent(0, pointer, 0, self._written),)
        borne = dict(xattrs or {})
        if self._digested == self._written:
            borne.setdefault(DIGEST, self._digest.hexdigest().encode("ascii"))
        file = File(self._name, self._recording.index.new_uid(), times, self._written, extents, xattrs=borne)
        self._end(file)
        return file

    def _hold_readable(self, xattrs: Mapping[str, bytes]) -> None:
        for key, value in xattrs.items():
            if not key or len(value) > _XATTR_BYTES_MAX:
                self.abort()
                raise FormatError(where=self.name, reason=f"the attribute {key!r} has {len(value)} bytes")

    def abort(self) -> None:
        """Leave no file; what was written of it stays on the tape, and no index names it."""
        if not self._done:
            self._end(None)

    def _end(self, file: File | None) -> None:
        self._done = True
        self._told(file, self._kept)

    def _flush_held(self) -> bool:
        if not self.put(self._held):
            return False
        self._held = bytearray()
        return True
