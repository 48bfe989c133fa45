"""The kinds of cartridges: as the label says, whose last two characters mean one (LTO), and as its folder does.

A folder says it as the reference implementation's file backend does, in ``filedebug_tc_conf.xml``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

_CONFIG = "filedebug_tc_conf.xml"
BARCODE = re.compile("[0-9A-Z]{1,8}")
_DENSITIES = {"L5": 0x58, "L6": 0x5A, "L7": 0x5C, "M8": 0x5D, "L8": 0x5E, "L9": 0x60}
_WRITE_ONCE = {"LV": "L5", "LW": "L6", "LX": "L7", "LY": "L8", "LZ": "L9"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of cartridge it is.

    Attributes:
        capacity_mib: of both partitions together.
        generation: as the barcode's end has it: L5, L8, ...
        density: by which drives know it.
        write_protected: its tab is set.
        worm: what is written stays.
    """

    capacity_mib: int = 3072
    generation: str = "L8"
    density: int = 0x5E
    write_protected: bool = False
    worm: bool = False


def kind_of(barcode: str, like: Kind | None = None) -> Kind:
    """The kind that a label says, in all else like another.

    Raises:
        ValueError: no cartridge can bear such a label.
    """
    if not BARCODE.fullmatch(barcode):
        raise ValueError(f"{barcode!r} is no barcode: up to eight digits and capitals")
    like = like if like is not None else Kind()
    ending = barcode[-2:]
    generation = _WRITE_ONCE.get(ending, ending)
    if generation not in _DENSITIES:
        return like
    worm = like.worm or ending in _WRITE_ONCE
    return replace(like, generation=generation, density=_DENSITIES[generation], worm=worm)


def read_kind(folder: Path) -> Kind:
    """What kind of cartridge a folder says it is.

    Raises:
        ValueError: what it says cannot be.
    """
    path, default = folder / _CONFIG, Kind()
    try:
        root = ElementTree.fromstring(path.read_bytes())  # noqa: S314  # our own folder, not what lies on the tape
    except FileNotFoundError:
        return default
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: {error}") from error
    texts = {child.tag: (child.text or "").strip() for child in root}
    with suppress(ValueError):
        return Kind(
            capacity_mib=int(texts.get("capacity_mb", "") or default.capacity_mib),
            generation=texts.get("cart_type", "") or default.generation,
            density=int(texts.get("density_code", "") or f"{default.density:x}", 16),
            write_protected=texts.get("emulate_readonly") == "true",
            worm=texts.get("worm") == "true",
        )
    raise ValueError(f"{path}: a number was expected")


def write_kind(folder: Path, kind: Kind) -> None:
    """Have a folder say what kind of cartridge it is: with the reference's elements; ``worm`` is ours."""
    root = ElementTree.Element("filedebug_cartridge_config")
    texts = {
        "dummy_io": "false",
        "emulate_readonly": str(kind.write_protected).lower(),
        "capacity_mb": str(kind.capacity_mib),
        "cart_type": kind.generation,
        "density_code": f"{kind.density:x}",
        "delay_mode": "None",
        "worm": str(kind.worm).lower(),
    }
    for tag, text in texts.items():
        ElementTree.SubElement(root, tag).text = text
    ElementTree.ElementTree(root).write(folder / _CONFIG, "utf-8", xml_declaration=True)
