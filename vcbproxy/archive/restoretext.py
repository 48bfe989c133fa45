"""``RESTORE.txt``: how to bring a restore point back with ``cat``, ``zstd`` and ``sha256sum`` alone.

Whoever reads it may have nothing of ours, and no network. Lines that begin with four blanks are commands of a POSIX
shell, word for word; a test carries them out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from vcbproxy.archive import layout
from vcbproxy.archive.manifest import Document, Image, Kind, State
from vcbproxy.catalog.records import ArchivedPart

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a VM's name must not make lines, still less commands


def of(document: Document, here: Sequence[ArchivedPart]) -> bytes:
    """The file.

    Args:
        document: what is known of the restore point.
        here: what lies on this cartridge; it alone counts while more is to come.
    """
    lines = _continues(document, here) if document.state is State.CONTINUES else _whole(document)
    return "".join(f"{_CONTROL.sub('?', line)}\n" for line in lines).encode()


def _continues(document: Document, here: Sequence[ArchivedPart]) -> Iterator[str]:
    yield from _title(document)
    yield ""
    yield "This cartridge was full before the backup was: there is more of it on a later cartridge of"
    yield f"the media set {document.media_set}. The RESTORE.txt there says how to bring it back, and needs"
    yield "these files of this cartridge, too:"
    yield ""
    for part in here:
        yield f"  {part.path}"
    yield ""
    yield "If there is no such cartridge, the backup was broken off, and another one was made later."


def _whole(document: Document) -> Iterator[str]:
    yield from _title(document)
    if document.missing_disks:
        yield ""
        yield "NOT THE WHOLE MACHINE: these disks could not be read, and are not in it:"
        for disk in document.missing_disks:
            yield f"  {disk}"
    yield ""
    yield "It is brought back with common tools: cat, zstd, sha256sum; nothing of vcbproxy is needed."
    yield ""
    yield "WHERE IT LIES"
    yield ""
    for barcode in dict.fromkeys(part.barcode for part in document.parts):
        yield f"  cartridge {barcode}"
        for part in document.parts:
            if part.barcode == barcode:
                yield f"    - {part.path}   ({part.size_bytes} bytes)"
    yield ""
    yield "The cartridges are LTFS; any program that mounts LTFS reads them. Copy what is listed above into"
    yield f"one directory: first from {_first(document)}, and at last from this one, whose vm.json, RESTORE.txt"
    yield "and SHA256SUMS take the place of those of the others. (Where all of them are mounted at once,"
    yield "`cat` can read them where they are.)"
    yield ""
    yield "HOW TO BRING IT BACK"
    if document.encryption.get("method") == "age":
        yield ""
        yield "The images are encrypted by age (age-encryption.org). The identity (the secret key) that belongs to"
        yield f"{' or '.join(document.encryption.get('recipients', []))}"
        yield "is expected in the file key.txt."
    if document.encryption.get("method") == "hardware":
        yield ""
        yield "The drive encrypted these cartridges. It reads them once it has got the key called"
        yield f"{document.encryption.get('key')}, by `stenc` or the like."
    if any(image.kind is Kind.DELTA for image in document.images):
        yield from _base(document)
    yield ""
    yield "In that directory:"
    yield ""
    for image in document.images:
        yield from (f"    {command}" for command in _commands(document, image))
    yield f"    sha256sum -c {layout.SUMS}"
    yield ""
    yield "The last command must say OK for every file. The *.raw files are the disks, byte for byte: write one to"
    yield "a disk of its size (dd), give it to QEMU, or make a VMDK of it (qemu-img convert -O vmdk)."
    yield "*.vmx is the machine's configuration; vm.json says which disk hung where."


def _title(document: Document) -> Iterator[str]:
    yield f"Backup of the virtual machine {document.vm}"
    yield f"as it was at {document.time:%Y-%m-%d %H:%M:%S} UTC"
    yield f"made by vcbproxy; id {document.id}"


def _first(document: Document) -> str:
    return next(iter(document.parts)).barcode


def _base(document: Document) -> Iterator[str]:
    assert document.base is not None, "a delta without a base"
    yield ""
    yield f"Only what changed since {document.base.name} (id {document.base.id}) is in it."
    yield "Bring that one back first, by its own RESTORE.txt, in a directory of its own, and put its *.raw files here;"
    yield "they are changed in place by the commands below: each line of a *.map file is an offset and a length in"
    yield "bytes, and the image has the bytes of these ranges, one behind the other (dd of coreutils writes them)."


def _commands(document: Document, image: Image) -> Iterator[str]:
    parts = " ".join(shlex.quote(part.path.rpartition("/")[2]) for part in image.parts)
    decrypt = " | age -d -i key.txt" if image.file.endswith(".age") else ""
    if image.kind is Kind.FULL:
        yield f"cat {parts}{decrypt} | zstd -d -q -f -o {shlex.quote(f'{image.key}.raw')}"
        return
    assert image.ranges is not None, "a delta without a map"
    if image.base_key not in (None, image.key):
        yield f"mv {shlex.quote(f'{image.base_key}.raw')} {shlex.quote(f'{image.key}.raw')}"
    ranges = shlex.quote(image.ranges)
    maps = [shlex.quote(part.path.rpartition("/")[2]) for part in document.files if part.file == image.ranges]
    if len(maps) > 1:
        whole = shlex.quote(f"{image.ranges}.whole")
        yield f"cat {' '.join(maps)} > {whole}"
        ranges = whole
    yield f"cat {parts}{decrypt} | zstd -d -q -c | while read -r offset length <&3; do"
    yield f'    dd of={shlex.quote(f"{image.key}.raw")} bs=1M iflag=fullblock,count_bytes count="$length" \\'
    yield '        oflag=seek_bytes seek="$offset" conv=notrunc status=none'
    yield f"done 3< {ranges}"
