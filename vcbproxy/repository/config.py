"""What is fixed when a repository is made: restic's config file, and ours beside it.

    config             sealed JSON (no version byte): version 2, the repository's id, the chunker polynomial
    vcbproxy/config    sealed JSON envelope: how we cut disks. A repository that stock restic made has none: defaults

Restic refuses a polynomial that is not irreducible over GF(2), so a real one is drawn even though we never divide by
it: it is the secret from which our own chunker's numbers are derived.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.repository import codec
from vcbproxy.repository.ids import Buffer

VERSION = 2
WINDOW_DEFAULT = 64
WINDOW_MIN, WINDOW_MAX = 8, 512
_DEGREE = 53
_POLYNOMIAL = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """Restic's config file."""

    repository_id: str
    polynomial: int

    @property
    def polynomial_hex(self) -> str:
        """As restic writes it; also the seed of our chunker."""
        return f"{self.polynomial:x}"

    def encode(self) -> bytes:
        """The plaintext of the file."""
        return codec.dump({"version": VERSION, "id": self.repository_id, "chunker_polynomial": self.polynomial_hex})

    @classmethod
    def decode(cls, plain: Buffer, what: str) -> RepositoryConfig:
        """Read it.

        Raises:
            IntegrityError: malformed.
            UsageError: a version that is not ours.
        """
        fields = codec.Fields(codec.parse(plain, what), what)
        version = fields.number("version")
        if version != VERSION:
            remedy = "run `restic migrate upgrade_repo_v2` on it" if version == 1 else "a newer vcbproxy may know it"
            raise UsageError(f"{what}: repository format version {version} is not supported; {remedy}")
        polynomial = fields.text("chunker_polynomial")
        if not _POLYNOMIAL.fullmatch(polynomial) or not irreducible(int(polynomial, 16)):
            raise IntegrityError(f"{what}: its chunker polynomial is not an irreducible one")
        return cls(fields.id("id").hex(), int(polynomial, 16))


@dataclass(frozen=True, slots=True)
class ChunkerSettings:
    """How disks are cut in this repository. Kept for its whole life: chunks cut otherwise do not dedup.

    Attributes:
        window: w of the local-minimum rule, in 4 KiB blocks; the mean chunk is about 8·w KiB.
    """

    window: int = WINDOW_DEFAULT

    def __post_init__(self) -> None:
        if not WINDOW_MIN <= self.window <= WINDOW_MAX:
            raise UsageError(f"chunker window {self.window}: choose one from {WINDOW_MIN} to {WINDOW_MAX}")

    @property
    def max_bytes(self) -> int:
        """The longest chunk of data: four times the mean."""
        return 4 * 8 * self.window * 1024

    def encode(self) -> bytes:
        """The plaintext of our file."""
        chunker = {"algorithm": "lm", "version": 1, "window": self.window, "max": self.max_bytes}
        return codec.encode({"format": "vcbproxy.parameters/1", "chunker": chunker})

    @classmethod
    def decode(cls, plain: Buffer, what: str) -> ChunkerSettings:
        """Read it.

        Raises:
            IntegrityError: malformed.
            UsageError: an algorithm or version that is not ours.
        """
        fields = codec.Fields(codec.decode(plain, what), what)
        if fields.text("format") != "vcbproxy.parameters/1":
            raise UsageError(f"{what}: format {fields.text('format')!r} is not known; a newer vcbproxy may know it")
        chunker = fields.fields("chunker")
        if (chunker.text("algorithm"), chunker.number("version")) != ("lm", 1):
            raise UsageError(f"{what}: its chunker is not known; a newer vcbproxy may know it")
        settings = cls(chunker.number("window"))
        if settings.max_bytes != chunker.number("max"):
            raise IntegrityError(f"{what}: window {settings.window} does not go with max {chunker.number('max')}")
        return settings


def new_polynomial(random_bits: Callable[[int], int]) -> int:
    """A random irreducible polynomial of degree 53; about one odd candidate in 27 is.

    Args:
        random_bits: gives that many random bits; ``secrets.randbits``.
    """
    while True:
        candidate = random_bits(_DEGREE) | 1 << _DEGREE | 1
        if irreducible(candidate):
            return candidate


def irreducible(polynomial: int) -> bool:
    """Ben-Or's test: no factor in common with x^(2^i) - x for any i up to half the degree.

    Polynomials over GF(2) are ints here, bit i the coefficient of x^i.
    """
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 0b10  # x
    for _ in range(degree // 2):
        power = _multiply_mod(power, power, polynomial)
        if _gcd(polynomial, power ^ 0b10) != 1:
            return False
    return True


def _multiply_mod(a: int, b: int, modulus: int) -> int:
    result, top = 0, 1 << (modulus.bit_length() - 1)
    while b:
        if b & 1:
            result ^= a
        a <<= 1
        if a & top:
            a ^= modulus
        b >>= 1
    return result


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _mod(a, b)
    return a


def _mod(a: int, b: int) -> int:
    while a.bit_length() >= b.bit_length():
        a ^= b << (a.bit_length() - b.bit_length())
    return a
