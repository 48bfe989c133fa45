"""Sealed messages: they open to what was sealed, and no flipped bit goes unseen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import crypto

KEY = crypto.Key.from_bytes(bytes(range(1, 65)))


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_what_is_sealed_opens_again(plain: bytes) -> None:
    assert crypto.unseal(KEY, crypto.seal(KEY, plain)) == plain


@given(st.lists(st.binary(max_size=100), max_size=8))
@settings(max_examples=50, deadline=None)
def test_of_many_messages_each_stands_alone(plains: list[bytes]) -> None:
    sealer, opener = crypto.Sealer(KEY), crypto.Opener(KEY)
    for plain in plains:
        out, back = bytearray(150), bytearray(150)
        sealed = bytes(memoryview(out)[: sealer.seal_into(plain, memoryview(out))])
        assert crypto.unseal(KEY, sealed) == plain
        alone = crypto.seal(KEY, plain)
        assert back[: opener.open_into(alone, memoryview(back))] == plain


def test_a_damaged_message_does_not_harm_the_next() -> None:
    opener, back = crypto.Opener(KEY), bytearray(50)
    with pytest.raises(IntegrityError):
        opener.open_into(bytes(40), memoryview(back))
    assert opener.open_into(crypto.seal(KEY, b"whole"), memoryview(back)) == 5
    assert back[:5] == b"whole"


@given(st.binary(max_size=100), st.data())
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_is_seen(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(crypto.seal(KEY, plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError, match="authentication"):
        crypto.unseal(KEY, sealed)


@given(st.binary(max_size=31))
@settings(max_examples=20, deadline=None)
def test_too_short_is_no_message(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="too short"):
        crypto.unseal(KEY, data)


def test_the_same_plaintext_is_never_sealed_alike() -> None:
    assert crypto.seal(KEY, b"same") != crypto.seal(KEY, b"same")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(IntegrityError):
        crypto.unseal(crypto.new_key(), crypto.seal(KEY, b"secret"))


def test_the_construction_is_the_documented_one() -> None:
    """Recomputed from its parts: AES-CTR, and Poly1305 keyed by r and AES(k, nonce)."""
    from cryptography.hazmat.primitives import ciphers
    from cryptography.hazmat.primitives.ciphers import algorithms, modes
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    sealed = crypto.seal(KEY, b"plaintext")
    nonce, text, mac = sealed[:16], sealed[16:-16], sealed[-16:]
    assert ciphers.Cipher(algorithms.AES(KEY.encrypt), modes.CTR(nonce)).decryptor().update(text) == b"plaintext"
    pad = ciphers.Cipher(algorithms.AES(KEY.mac_k), modes.ECB()).encryptor().update(nonce)
    Poly1305.verify_tag(KEY.mac_r + pad, text, mac)


def test_sealing_writes_nothing_beyond_the_message() -> None:
    out = bytearray(b"\xaa" * 100)
    size = crypto.Sealer(KEY).seal_into(b"12345", memoryview(out))
    assert size == crypto.sealed_size(5) == 37
    assert out[size:] == b"\xaa" * 63


def test_keys_are_never_printed_and_never_zero() -> None:
    assert repr(KEY) == "Key(…)"
    for secret in (bytes(64), bytes(32) + b"k" * 32, b"k" * 48 + bytes(16), b"short"):
        with pytest.raises(IntegrityError):
            crypto.Key.from_bytes(secret)
