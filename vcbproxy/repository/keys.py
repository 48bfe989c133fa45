"""From a password to the repository's master key, and back into a key file.

A key file is plain JSON, named by the digest of its bytes:

    created username hostname     informational
    kdf N r p salt                "scrypt" and its parameters; the salt has 64 bytes
    data                          the master key's JSON, sealed with the key that scrypt gives

All key files of a repository wrap the same master key; any one password opens it.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from vcbproxy.errors import CredentialsError, IntegrityError
from vcbproxy.repository import codec, crypto
from vcbproxy.repository.backend.base import Backend, FileKind, FileName, FileUnreadable, load_all
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.ids import digest

_KEY_FILE_BYTES_MAX = 64 << 10
_TRIES_MAX = 20  # restic's own limit
_SALT_BYTES = 64
_MEMORY_BYTES_MAX = 1 << 30
_WORK_MAX = 1 << 24  # N·r·p; sixteen times what we take, some six seconds


@dataclass(frozen=True, slots=True)
class Kdf:
    """scrypt's parameters. The default costs 32 MiB and about a fifth of a second.

    OWASP's Password Storage Cheat Sheet has it among its settings of equal strength, from N=2^17, p=1 to N=2^13,
    p=10. Stock restic takes the same N and r, and as many rounds p as its own scrypt does in half a second.
    """

    n: int = 1 << 15
    r: int = 8
    p: int = 3

    def __post_init__(self) -> None:
        power_of_two = self.n > 1 and self.n & (self.n - 1) == 0
        if not power_of_two or self.r < 1 or self.p < 1:
            raise IntegrityError(f"a key file asks for scrypt with N={self.n}, r={self.r}, p={self.p}: not valid")
        if 128 * self.n * self.r > _MEMORY_BYTES_MAX or self.n * self.r * self.p > _WORK_MAX:
            raise IntegrityError(f"a key file asks for scrypt with N={self.n}, r={self.r}, p={self.p}: absurdly much")

    def derive(self, password: str, salt: bytes) -> crypto.Key:
        """The user's key."""
        # Not hashlib's: what this one is built on needs a sixth less time.
        scrypt = Scrypt(salt, 64, self.n, self.r, self.p)
        secret = scrypt.derive(password.encode("utf-8", "surrogateescape"))
        return crypto.Key.from_bytes(secret)


def add(backend: Backend, master: crypto.Key, password: str, kdf: Kdf, identity: Identity, created: str) -> FileName:
    """Store a key file that opens ``master`` with ``password``."""
    if not password:
        raise CredentialsError("an empty password protects nothing; choose one")
    salt = os.urandom(_SALT_BYTES)
    sealed = crypto.seal(kdf.derive(password, salt), codec.dump(_master_to_json(master)))
    content = codec.dump(
        {
            "created": created,
            "username": identity.username,
            "hostname": identity.hostname,
            "kdf": "scrypt",
            "N": kdf.n,
            "r": kdf.r,
            "p": kdf.p,
            "salt": _b64(salt),
            "data": _b64(sealed),
        }
    )
    name = FileName(FileKind.KEY, digest(content).hex())
    backend.save(name, [content])
    return name


def unlock(backend: Backend, password: str) -> crypto.Key:
    """The master key, by trying every key file.

    Raises:
        CredentialsError: none opens with this password.
        IntegrityError: no key file is there, or none of them is readable.
    """
    names = sorted((stored.name for stored in backend.list(FileKind.KEY)), key=lambda name: name.stem)
    if not names:
        raise IntegrityError(
            f"{backend.location}: there is no file in {FileKind.KEY.value}, without which no password opens it: "
            "bring one back from a copy of the repository"
        )
    damage: list[IntegrityError] = []
    for name in names[:_TRIES_MAX]:
        try:
            master = _try(backend, name, password)
        except IntegrityError as error:
            damage.append(error)
            continue
        if master is not None:
            return master
    if damage and len(damage) == len(names):
        raise damage[0]
    if damage:
        raise CredentialsError(
            f"{backend.location}: the password opens no key; it may be that of one that is damaged: {damage[0]}"
        )
    raise CredentialsError(f"{backend.location}: wrong password: none of its {len(names)} keys opens with it")


def damaged(backend: Backend) -> Iterator[IntegrityError]:
    """What is wrong with key files. One that is lost takes its password with it; another one still opens everything.

    Raises:
        TargetError: they cannot be listed or read.
    """
    for stored in backend.list(FileKind.KEY):
        try:
            _content(backend, stored.name)
        except IntegrityError as error:
            yield error


def _content(backend: Backend, name: FileName) -> bytes:
    try:
        content = load_all(backend, name, _KEY_FILE_BYTES_MAX)
    except FileUnreadable as error:
        raise IntegrityError(str(error)) from error
    if digest(content).hex() != name.stem:
        raise IntegrityError(f"{backend.location}: {name.path} is damaged: its content does not match its name")
    return content


def _try(backend: Backend, name: FileName, password: str) -> crypto.Key | None:
    """The master key; None when the password is another one's."""
    what = f"{backend.location}: {name.path}"
    content = _content(backend, name)
    fields = codec.Fields(codec.parse(content, what), what)
    if fields.text("kdf") != "scrypt":
        raise IntegrityError(f"{what} wants key derivation {fields.text('kdf')!r}; only scrypt is known")
    kdf = Kdf(fields.number("N"), fields.number("r"), fields.number("p"))
    salt, data = _unb64(fields, "salt"), _unb64(fields, "data")
    if len(salt) != _SALT_BYTES:
        raise IntegrityError(f"{what}: a salt of {len(salt)} bytes, where {_SALT_BYTES} belong")
    user = kdf.derive(password, salt)
    try:
        plain = crypto.unseal(user, data)
    except IntegrityError:
        return None  # the file itself is whole (its digest was right): it is the password
    return _master_from_json(plain, what)


def _master_to_json(master: crypto.Key) -> dict[str, object]:
    return {"mac": {"k": _b64(master.mac_k), "r": _b64(master.mac_r)}, "encrypt": _b64(master.encrypt)}


def _master_from_json(plain: bytes, what: str) -> crypto.Key:
    fields = codec.Fields(codec.parse(plain, what), what)
    mac = fields.fields("mac")
    return crypto.Key(_unb64(fields, "encrypt"), _unb64(mac, "k"), _unb64(mac, "r"))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(fields: codec.Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields.text(name), validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError(f"{fields.what}: field {name!r} is not base64") from error
