"""Devices with other bytes in places, so that a test can damage a volume without writing to it."""

from __future__ import annotations

from vcbproxy.device import Device, read


class Overlay:
    """Another device, with patches over it. Later patches win."""

    def __init__(self, base: Device, size_bytes: int | None = None) -> None:
        self._base = base
        self._size_bytes = base.size_bytes if size_bytes is None else size_bytes
        self._patches: list[tuple[int, bytes]] = []
        self.reads = 0
        self.bytes_read = 0

    @property
    def name(self) -> str:
        return self._base.name

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def patch(self, offset: int, data: bytes) -> None:
        self._patches.append((offset, data))

    def patch_number(self, offset: int, number: int, size: int = 4) -> None:
        self.patch(offset, number.to_bytes(size, "little"))

    def number(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(read(self, offset, size), "little")

    def reset(self) -> None:
        self._patches.clear()

    def read_into(self, offset: int, buf: memoryview) -> None:
        self.reads += 1
        self.bytes_read += len(buf)
        assert offset + len(buf) <= self._size_bytes, "the reader must not read past the end"
        self._base.read_into(offset, buf)
        for start, data in self._patches:
            low, high = max(offset, start), min(offset + len(buf), start + len(data))
            if low < high:
                buf[low - offset : high - offset] = data[low - start : high - start]
