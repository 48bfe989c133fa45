"""A device kept from other hosts: persistent reservations (SPC-5, 5.14), of the type exclusive access.

    register our key ──▶ reserve ──▶ … use … ──▶ release ──▶ register no key
                            └ another host has it: reservation conflict, and so for every other command

A drive that loses its power forgets all of it: whoever meets that takes the device again, or is kept out from there on.
Files lock out the programs of one host; this locks out other hosts on the same SAN. The reservation outlives a host
that dies: somebody must then break it, knowing that the host is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from tape.errors import Reserved, TapeError, UnitAttention
from tape.scsi import cdb
from tape.scsi.reservationkey import KEY_BYTES
from tape.scsi.unit import Unit

_RESERVE, _RELEASE, _REGISTER_AND_IGNORE = 0x01, 0x02, 0x06
_EXCLUSIVE_ACCESS = 0x03
_ATTENTIONS_MAX = 8


@contextmanager
def reserved(unit: Unit, key: bytes) -> Iterator[Callable[[], None]]:
    """Keep every other host from a device for the length of a ``with``.

    Gives what is to be called after everything that may have cost the reservation, as a power cut: it takes the device
    again, and raises ``Reserved`` when another host has it by then.

    Raises:
        Reserved: another host has it.
        RefusedCommand: it knows no persistent reservations.
        TapeError: it failed.
    """
    _register(unit, key)
    try:
        _reserve(unit, key)
        try:
            yield partial(_again, unit, key)
        except BaseException:
            with suppress(TapeError):  # the first error is the one to be told
                _release(unit, key)
            raise
        with suppress(Reserved):  # lost since the last command; and that one was carried out
            _release(unit, key)
    finally:
        with suppress(TapeError):  # a key without a reservation keeps nobody out
            _out(unit, _REGISTER_AND_IGNORE, bytes(KEY_BYTES), bytes(KEY_BYTES), "unregister a reservation key")


def _register(unit: Unit, key: bytes) -> None:
    _out(unit, _REGISTER_AND_IGNORE, bytes(KEY_BYTES), key, "register a reservation key")


def _reserve(unit: Unit, key: bytes) -> None:
    _out(unit, _RESERVE, key, bytes(KEY_BYTES), "reserve")


def _release(unit: Unit, key: bytes) -> None:
    _out(unit, _RELEASE, key, bytes(KEY_BYTES), "release")


def _again(unit: Unit, key: bytes) -> None:
    """For whoever still has it, the same two commands change nothing.

    Raises:
        Reserved: another host has taken it meanwhile.
    """
    _register(unit, key)
    _reserve(unit, key)


def _out(unit: Unit, action: int, key: bytes, new_key: bytes, what: str) -> None:
    """A command that meets a unit attention was not carried out; this one is right whatever has happened."""
    parameters = key + new_key + bytes(8)
    command = cdb.persistent_reserve_out(action, _EXCLUSIVE_ACCESS, len(parameters))
    for _ in range(_ATTENTIONS_MAX):
        with suppress(UnitAttention):
            unit.run(command, what, data_out=parameters)
            return
    unit.run(command, what, data_out=parameters)
