"""Encryption by an emulated drive: SECURITY PROTOCOL IN and OUT, protocol 20h (SSC-4, 8.5), what becomes of records.

A key is held for one session (local) or for all of them, in memory alone: a power cut loses it, and so does the going
of the cartridge where the host asked for that. What is encrypted lies on the cartridge as

    ├ mark (16) ┼ fingerprint of the key (8) ┼ nonce (12) ┼ lengths (2+2) ┼ descriptions ┼ AES-256-GCM: text, tag ┤

and whoever reads it without the key, or with another, is told so by sense data: 7/74/xx.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from tape.emulator.check import Check, Session, invalid_field, invalid_parameter
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

_MARK = bytes.fromhex("9b1f54e0c2774d0aa1f3e86d5b20c7fe")  # nothing begins with it but by our hand
_FINGERPRINT_BYTES, _NONCE_BYTES, _KEY_BYTES = 8, 12, 32
_HEAD_BYTES = len(_MARK) + _FINGERPRINT_BYTES + _NONCE_BYTES + 4
_ALGORITHM = 1
_AES_256_GCM = 0x00010014
_UNAUTHENTICATED_MAX, _AUTHENTICATED_MAX = 32, 12
_LOCAL, _ALL = 1, 2
_OFF, _ON = 0, 2
_RAW, _MIXED = 1, 3
CHANGED_BY_ANOTHER = (0x2A, 0x11)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a host has set.

    Attributes:
        scope: for its own session, or for all.
        encryption: what becomes of records that are written.
        decryption: what becomes of encrypted ones that are read.
        key: empty when there is none.
        unauthenticated: a description of the key, kept beside each record.
        authenticated: likewise, and no one can change it unnoticed.
        cleared_on_demount: whether it goes with the cartridge.
        counter: goes on with each setting.
    """

    scope: int = 0
    encryption: int = _OFF
    decryption: int = _OFF
    key: bytes = b""
    unauthenticated: bytes = b""
    authenticated: bytes = b""
    cleared_on_demount: bool = False
    counter: int = 0


class Sealer:
    """The drive's cipher, and its keys."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._shared = Setting()
        self._local: WeakKeyDictionary[Session, Setting] = WeakKeyDictionary()
        self._counter = 0

    def setting(self, session: Session) -> Setting:
        """What holds for a session."""
        return self._local.get(session, self._shared)

    # ------------------------------------------------------------------ keys that go

    def forget_all(self) -> None:
        """The power has gone."""
        self._shared = Setting()
        self._local.clear()

    def forget_session(self, session: Session) -> None:
        """A session has ended."""
        self._local.pop(session, None)

    def demounted(self) -> None:
        """The cartridge has gone."""
        if self._shared.cleared_on_demount:
            self._shared = Setting(counter=self._counter)
        for session in [one for one, setting in self._local.items() if setting.cleared_on_demount]:
            del self._local[session]

    # ------------------------------------------------------------------ records

    def sealed(self, session: Session, record: Buffer) -> Buffer:
        """A record as it goes on tape."""
        setting = self.setting(session)
        if setting.encryption != _ON:
            return record
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._random_bytes(_NONCE_BYTES)
        lengths = len(setting.unauthenticated).to_bytes(2, "big") + len(setting.authenticated).to_bytes(2, "big")
        head = _MARK + _fingerprint(setting.key) + nonce + lengths + setting.unauthenticated + setting.authenticated
        return head + AESGCM(setting.key).encrypt(nonce, bytes(record), setting.authenticated)

    def opened(self, session: Session, record: bytes) -> bytes:
        """A record as it is given to whoever reads it.

        Raises:
            Check: it is encrypted, and this session has not its key; or it is not, and should be.
        """
        setting = self.setting(session)
        if not record.startswith(_MARK):
            if setting.decryption == _ON:
                raise Check(Key.DATA_PROTECT, 0x74, 0x02)
            return record
        if setting.decryption == _RAW:
            return record
        if setting.decryption == _OFF or not setting.key:
            raise Check(Key.DATA_PROTECT, 0x74, 0x01)
        if not _is_by(setting.key, record):
            raise Check(Key.DATA_PROTECT, 0x74, 0x03)
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        _, authenticated, text = _parted(record)
        nonce = record[len(_MARK) + _FINGERPRINT_BYTES :][:_NONCE_BYTES]
        try:
            return AESGCM(setting.key).decrypt(nonce, text, authenticated)
        except InvalidTag:
            raise Check(Key.DATA_PROTECT, 0x74, 0x04) from None

    # ------------------------------------------------------------------ what hosts ask and set

    def answer(self, session: Session, cdb: bytes, record: bytes | None, block: int) -> bytes:
        """SECURITY PROTOCOL IN.

        Args:
            session: whose.
            cdb: the command.
            record: what lies before the head, as it is on tape; None where no record lies.
            block: the number of it.

        Raises:
            Check: there is no such page.
        """
        protocol, page = cdb[1], int.from_bytes(cdb[2:4], "big")
        if protocol == 0x00 and page == 0:
            return _cut(bytes(6) + bytes((0, 2, 0x00, 0x20)), cdb)
        if protocol != 0x20:
            raise invalid_field()
        match page:
            case 0x0000:
                body = b"".join(code.to_bytes(2, "big") for code in (0, 1, 0x10, 0x11, 0x12, 0x20, 0x21))
            case 0x0001:
                body = b"\x00\x10"
            case 0x0010:
                body = bytes((0x01,)) + bytes(15) + _capability()
            case 0x0011:
                body = b"\x00"
            case 0x0012:
                body = bytes((0x00, 0x04, 0x00, 0x06)) + bytes(8)  # CKOD; keys for all sessions, or for one
            case 0x0020:
                body = self._status(session)
            case 0x0021:
                body = self._next_block(session, record, block)
            case _:
                raise invalid_field()
        return _cut(page.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body, cdb)

    def _status(self, session: Session) -> bytes:
        setting = self.setting(session)
        scopes = setting.scope << 5 | setting.scope
        head = bytes((scopes, setting.encryption, setting.decryption, _ALGORITHM if setting.key else 0))
        described = _descriptors(setting.unauthenticated, setting.authenticated) if setting.encryption == _ON else b""
        return head + setting.counter.to_bytes(4, "big") + bytes(12) + described

    def _next_block(self, session: Session, record: bytes | None, block: int) -> bytes:
        described = b""
        if record is None:
            status = 2
        elif not record.startswith(_MARK):
            status = 3
        else:
            setting = self.setting(session)
            can = setting.decryption in (_ON, _MIXED) and bool(setting.key) and _is_by(setting.key, record)
            status = 5 if can else 6
            described = _descriptors(*_parted(record)[:2])
        algorithm = _ALGORITHM if status >= 5 else 0
        return block.to_bytes(8, "big") + bytes((status, algorithm, 0, 0)) + described

    def set(self, session: Session, cdb: bytes, data: Buffer) -> bool:
        """SECURITY PROTOCOL OUT: a key, or none any more. Whether it concerns the other sessions too.

        Raises:
            Check: it cannot be taken.
        """
        page = bytes(data)
        if cdb[1] != 0x20 or int.from_bytes(cdb[2:4], "big") != 0x0010:
            raise invalid_field()
        if len(page) < 20 or page[:2] != b"\x00\x10" or int.from_bytes(page[2:4], "big") != len(page) - 4:
            raise invalid_parameter()
        scope, encryption, decryption = page[4] >> 5, page[6], page[7]
        length = int.from_bytes(page[18:20], "big")
        key, described = page[20 : 20 + length], page[20 + length :]
        wants_key = encryption == _ON or decryption in (_ON, _MIXED)
        if scope not in (_LOCAL, _ALL) or encryption not in (_OFF, _ON) or decryption > _MIXED:
            raise invalid_parameter()
        if wants_key and (len(key) != _KEY_BYTES or page[8] != _ALGORITHM or page[9]):
            raise invalid_parameter()
        texts = _described(described)
        self._counter += 1
        setting = Setting(
            scope,
            encryption,
            decryption,
            key if wants_key else b"",
            texts[0],
            texts[1],
            bool(page[5] & 4),
            self._counter,
        )
        if scope == _ALL:
            self._shared = setting
            self._local.pop(session, None)
        else:
            self._local[session] = setting
        return scope == _ALL


def _capability() -> bytes:
    """The one algorithm: it encrypts and decrypts, tells plain from encrypted records, and takes descriptions."""
    distinguishes, both_ways = 0x10, 0x0A
    sizes = (
        _UNAUTHENTICATED_MAX.to_bytes(2, "big") + _AUTHENTICATED_MAX.to_bytes(2, "big") + _KEY_BYTES.to_bytes(2, "big")
    )
    return (
        bytes((_ALGORITHM, 0, 0, 20, distinguishes | both_ways, 0x00))
        + sizes
        + bytes(8)
        + _AES_256_GCM.to_bytes(4, "big")
    )


def _described(data: bytes) -> tuple[bytes, bytes]:
    """The two descriptions of a key: without the drive's word, and with it."""
    texts, at = {0: b"", 1: b""}, 0
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        kind, text = data[at], data[at + 4 : at + 4 + length]
        if kind not in texts or len(data) < at + 4 + length:
            raise invalid_parameter()
        texts[kind] = text
        at += 4 + length
    if len(texts[0]) > _UNAUTHENTICATED_MAX or len(texts[1]) > _AUTHENTICATED_MAX:
        raise invalid_parameter()
    return texts[0], texts[1]


def _descriptors(unauthenticated: bytes, authenticated: bytes) -> bytes:
    return b"".join(
        bytes((kind, 0)) + len(text).to_bytes(2, "big") + text
        for kind, text in ((0, unauthenticated), (1, authenticated))
        if text
    )


def _parted(record: bytes) -> tuple[bytes, bytes, bytes]:
    """Both descriptions, and the ciphertext."""
    first, second = record[_HEAD_BYTES - 4 : _HEAD_BYTES - 2], record[_HEAD_BYTES - 2 : _HEAD_BYTES]
    middle = _HEAD_BYTES + int.from_bytes(first, "big")
    end = middle + int.from_bytes(second, "big")
    return record[_HEAD_BYTES:middle], record[middle:end], record[end:]


def _fingerprint(key: bytes) -> bytes:
    return hashlib.sha256(b"fingerprint of a drive's key" + key).digest()[:_FINGERPRINT_BYTES]


def _is_by(key: bytes, record: bytes) -> bool:
    return record[len(_MARK) :][:_FINGERPRINT_BYTES] == _fingerprint(key)


def _cut(answer: bytes, cdb: bytes) -> bytes:
    return answer[: int.from_bytes(cdb[6:10], "big")]
