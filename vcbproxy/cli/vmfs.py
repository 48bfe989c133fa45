"""``vcbproxy vmfs``: look into a VMFS volume with no manager at hand.

Reads block devices, past the page cache, or image files; writes nothing to them.
"""

from __future__ import annotations

import contextlib
import json
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import errors, units
from vcbproxy.cli import frame
from vcbproxy.cli.sizes import Size
from vcbproxy.device import aligned_buffer

if TYPE_CHECKING:
    from vcbproxy.vmfs.file import VmfsFile
    from vcbproxy.vmfs.inode import Inode
    from vcbproxy.vmfs.runs import Run
    from vcbproxy.vmfs.tree import Tree
    from vcbproxy.vmfs.volume import Volume

_STEP_BYTES = 4 * units.MiB


def _devices_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-d",
        "--device",
        "devices",
        multiple=True,
        required=True,
        metavar="DEVICE",
        help="Block device or image file, whole or a partition; once for each device of the volume, in any order.",
    )(command)


def _range_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--length", type=Size(), help="How many bytes; to the end when not given.")(command)
    return click.option("--offset", type=Size(), default=0, help="First byte of the file.")(command)


@contextlib.contextmanager
def _opened(devices: Sequence[str]) -> Iterator[Volume]:
    from vcbproxy.san.lun import open_lun
    from vcbproxy.vmfs.volume import Volume

    with contextlib.ExitStack() as stack:
        yield Volume.open([stack.enter_context(open_lun(device)) for device in devices])


@click.group(cls=frame.Group)
def vmfs() -> None:
    """Look into VMFS volumes with no manager at hand.

    Never writes, and never sends a SCSI reservation: safe on LUNs that hosts are using.
    """


@vmfs.command(cls=frame.Command)
@_devices_option
@click.argument("path", required=False)
@frame.json_option
def info(devices: Sequence[str], path: str | None, as_json: bool) -> None:
    """Show what a volume is; with PATH, what a file on it is."""
    with _opened(devices) as volume:
        frame.emit(_volume_row(volume) if path is None else _file_row(volume, path), as_json=as_json)


def _volume_row(volume: Volume) -> dict[str, Any]:
    return {
        "label": _printable(volume.label),
        "uuid": volume.uuid,
        "lvm_uuid": volume.lvm_uuid,
        "version": volume.version,
        "major": volume.major,
        "local": volume.fs.local,
        "size_bytes": volume.size_bytes,
        "block_size_bytes": volume.block_size_bytes,
        "sub_block_bytes": volume.fs.sub_block_bytes,
        "large_block_bytes": volume.fs.large_block_bytes or None,
        "devices": [_printable(device.name) for device in volume.devices],
    }


def _file_row(volume: Volume, path: str) -> dict[str, Any]:
    tree = volume.tree()
    inode = tree.find(path)
    return {
        **_inode_row(tree, inode),
        "allocated_bytes": _allocated(tree, inode),
        "generation": inode.generation,
        "token": inode.token,
        "lock_mode": inode.lock_mode,
        "ctime": _time(inode.ctime),
        "atime": _time(inode.atime),
    }


def _allocated(tree: Tree, inode: Inode) -> int | None:
    """Bytes that lie on devices; None for a raw device mapping, which has none here."""
    try:
        return tree.view.map_of(inode).allocated_bytes
    except errors.Unreadable:
        return None


def _inode_row(tree: Tree, inode: Inode) -> dict[str, Any]:
    from vcbproxy.vmfs.inode import FileType

    link = inode.type is FileType.SYMLINK
    return {
        "path": _printable(inode.name),
        "type": inode.type.name.lower(),
        "mode": f"{stat.S_IMODE(inode.mode):04o}",
        "links": inode.links,
        "uid": inode.uid,
        "gid": inode.gid,
        "size_bytes": inode.length,
        "mtime": _time(inode.mtime),
        "layout": inode.layout.name.lower(),
        "block_size_bytes": inode.block_size_bytes,
        "blocks": inode.blocks,
        "blocks_to_be_zeroed": inode.blocks_tbz,
        "address": f"{inode.address:#010x}",
        "target": _printable(tree.link_target(inode)) if link else None,
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _printable(name: str) -> str:
    """A name as it may be shown: neither broken bytes nor terminal controls get through."""
    whole = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in whole)


@vmfs.command(cls=frame.Command, exit_codes=(3,))
@_devices_option
@click.option("-l", "long", is_flag=True, help="Show what each file descriptor says.")
@click.option("-R", "recursive", is_flag=True, help="Go into directories.")
@click.argument("path", default="/")
@frame.json_option
def ls(devices: Sequence[str], long: bool, recursive: bool, path: str, as_json: bool) -> None:
    """List a directory, or one file.

    Entries whose file descriptor is damaged are listed with what is wrong; the command then ends with 3.
    """
    with _opened(devices) as volume:
        tree = volume.tree()
        rows = list(_listed(tree, tree.find(path), recursive=recursive, long=long or as_json))
    problems = [row for row in rows if row.get("problem")]
    columns = ("mode", "links", "uid", "gid", "size_bytes", "mtime", "layout", "path", "target")
    shown = (*columns, "problem") if problems else columns
    if as_json or long:
        frame.emit(rows, as_json=as_json, columns=("type", *shown))
    else:
        for row in rows:
            click.echo(row["path"])
    if problems:
        raise errors.Partial(f"{len(problems)} entries could not be read: {problems[0]['problem']}")


def _listed(tree: Tree, start: Inode, *, recursive: bool, long: bool) -> Iterator[dict[str, Any]]:
    """One row an entry. A directory met a second time (a damaged volume) is not entered again."""
    if not start.is_directory:
        yield _inode_row(tree, start)
        return
    todo, entered = [start], {start.address}
    while todo:
        directory = todo.pop()
        try:
            entries = sorted(tree.entries(directory), key=lambda entry: entry.name)
        except errors.VmfsError as error:
            if directory is start:
                raise
            yield {"path": _printable(directory.name), "problem": _printable(str(error))}
            continue
        for entry in entries:
            if entry.name in (".", ".."):
                continue
            path = f"{directory.name.rstrip('/')}/{entry.name}"
            if not (long or recursive):
                yield {"path": _printable(entry.name)}
                continue
            try:
                inode = tree.inode_of(entry, path)
                yield _inode_row(tree, inode)
            except errors.VmfsError as error:
                yield {"path": _printable(path), "problem": _printable(str(error))}
                continue
            if recursive and inode.is_directory and inode.address not in entered:
                entered.add(inode.address)
                todo.append(inode)


@vmfs.command(cls=frame.Command)
@_devices_option
@_range_options
@click.argument("path")
def cat(devices: Sequence[str], offset: int, length: int | None, path: str) -> None:
    """Write a file's bytes to stdout, or a part of them.

    The file descriptor and the map are read again at the end: a file that changed meanwhile is an error.
    """
    if sys.stdout.isatty():
        raise errors.UsageError("these are raw bytes, and stdout is a terminal; send them to a file or a pipe")
    with _opened(devices) as volume:
        file = volume.open_file(path)
        start, end = _range(file, offset, length)
        buf = aligned_buffer(_STEP_BYTES)
        while start < end:
            # Steps end on multiples of their size, so that whole steps are read straight into the buffer.
            part = buf[: min(_STEP_BYTES - start % _STEP_BYTES, end - start)]
            file.read_into(start, part)
            sys.stdout.buffer.write(part)
            start += len(part)
        sys.stdout.buffer.flush()
        file.recheck()


def _range(file: VmfsFile, offset: int, length: int | None) -> tuple[int, int]:
    end = file.size_bytes if length is None else offset + length
    if offset > file.size_bytes or end > file.size_bytes:
        wanted = f"from byte {offset}" if length is None else f"{length} bytes from byte {offset}"
        raise errors.UsageError(f"{file.name} has {file.size_bytes} bytes: it does not reach {wanted}")
    return offset, end


@vmfs.command("map", cls=frame.Command)
@_devices_option
@_range_options
@click.argument("path")
@frame.json_option
def map_(devices: Sequence[str], offset: int, length: int | None, path: str, as_json: bool) -> None:
    """Show where a file's bytes lie: on which device, at which offset, or that they read as zeroes."""
    with _opened(devices) as volume:
        file = volume.open_file(path)
        start, end = _range(file, offset, length)
        names = [_printable(device.name) for device in file.devices]
        runs = file.runs().between(start, end - start)
        if as_json:
            _write_json(file, names, runs)
        else:
            _write_table(names, runs)
    sys.stdout.flush()


def _write_json(file: VmfsFile, names: Sequence[str], runs: Iterator[Run]) -> None:
    """One document, written run by run: a scattered disk of some TiB has millions."""
    allocated = file.runs().allocated_bytes
    head = {"path": _printable(file.info.path), "size_bytes": file.size_bytes, "allocated_bytes": allocated}
    sys.stdout.write(json.dumps({**head, "devices": list(names)}, ensure_ascii=False)[:-1] + ', "runs": [')
    for number, run in enumerate(runs):
        row = {
            "file_offset": run.file_offset,
            "length": run.length,
            "device": None if run.is_zero else names[run.device],
            "device_offset": None if run.is_zero else run.device_offset,
            "zero": run.is_zero,
        }
        sys.stdout.write(("," if number else "") + "\n  " + json.dumps(row, ensure_ascii=False))
    sys.stdout.write("\n]}\n")


def _write_table(names: Sequence[str], runs: Iterator[Run]) -> None:
    sys.stdout.write(f"{'FILE OFFSET':>16}  {'LENGTH':>16}  {'DEVICE OFFSET':>16}  DEVICE\n")
    for run in runs:
        where = f"{'-':>16}  zero" if run.is_zero else f"{run.device_offset:>16}  {names[run.device]}"
        sys.stdout.write(f"{run.file_offset:>16}  {run.length:>16}  {where}\n")
