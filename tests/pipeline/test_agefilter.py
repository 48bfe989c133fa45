"""Encrypted on the way, so that stock age reads it; decrypted on the way, so that damage is told."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import psutil
import pyrage
import pytest

from tests.alarm import alarm
from tests.pipeline.disks import MappedMemory, data, noise
from vcbproxy.archive.agekeys import Identities, Recipients
from vcbproxy.errors import Cancelled, ConfigError, CredentialsError, DeviceError, IntegrityError
from vcbproxy.pipeline.agefilter import decrypted, encrypted
from vcbproxy.pipeline.archive import image_stream
from vcbproxy.pipeline.unarchive import Expected, unpack
from vcbproxy.units import KiB, MiB

stock_age = pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed (apt: age)")
ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")

PLAIN = noise(1, 3 * MiB + 17)
CHUNK = 64 * KiB  # of the age format


class Keys:
    """One pair."""

    def __init__(self) -> None:
        made = pyrage.x25519.Identity.generate()
        self.secret = str(made)
        self.recipients = Recipients.of([str(made.to_public())])
        self.identities = Identities.of(self.secret.encode(), "the test")


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def pieces(content: bytes, step: int = 100_000) -> Iterator[bytes]:
    return (content[at : at + step] for at in range(0, len(content), step))


def all_of(stream: AbstractContextManager[Iterator[bytes]]) -> bytes:
    with stream as found:
        return b"".join(found)


@pytest.fixture(scope="module")
def sealed(keys: Keys) -> bytes:
    return all_of(encrypted(pieces(PLAIN), keys.recipients))


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    threads, children = threading.active_count(), psutil.Process().children()  # servers of the session among them
    yield
    assert threading.active_count() == threads
    assert psutil.Process().children() == children


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_what_went_in_comes_out(keys: Keys, size: int) -> None:
    sealed = all_of(encrypted(pieces(PLAIN[:size]), keys.recipients))
    assert all_of(decrypted(pieces(sealed, 77_777), keys.identities, "image")) == PLAIN[:size]


@stock_age
def test_stock_age_decrypts_it(keys: Keys, sealed: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(keys.secret)
    (tmp_path / "sealed.age").write_bytes(sealed)
    done = subprocess.run(["age", "-d", "-i", "key", "sealed.age"], cwd=tmp_path, check=True, capture_output=True)
    assert done.stdout == PLAIN


@stock_age
@pytest.mark.parametrize("armor", [[], ["--armor"]])
def test_what_stock_age_encrypts_is_read(keys: Keys, armor: list[str]) -> None:
    command = ["age", *armor, "-r", keys.recipients.keys[0]]
    sealed = subprocess.run(command, input=PLAIN, check=True, capture_output=True).stdout
    assert all_of(decrypted([sealed], keys.identities, "image")) == PLAIN


@ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_keys_of_ssh_do_too(kind: str, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "id"], check=True)
    public = (tmp_path / "id.pub").read_text()
    recipients = Recipients.of([public])
    identities = Identities.of((tmp_path / "id").read_bytes(), "id")
    sealed = all_of(encrypted(pieces(PLAIN), recipients))
    assert all_of(decrypted([sealed], identities, "image")) == PLAIN
    listed = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "id.pub"], check=True, capture_output=True, text=True)
    assert recipients.names == [f"ssh-{kind} {listed.stdout.split()[1]}"]


def test_each_of_several_recipients_can_read(keys: Keys) -> None:
    other = Keys()
    sealed = all_of(
        encrypted(pieces(PLAIN), Recipients.of([*keys.recipients.keys, "# comment", *other.recipients.keys]))
    )
    for who in (keys, other):
        assert all_of(decrypted([sealed], who.identities, "image")) == PLAIN


def test_somebody_else_s_identity_is_told(sealed: bytes) -> None:
    with pytest.raises(CredentialsError, match="image is encrypted to somebody else"):
        all_of(decrypted([sealed], Keys().identities, "image"))


@pytest.mark.parametrize("left", [0, 10, 150, 300, 200 + 5 * (CHUNK + 16), -1, -(17 + 16)])
def test_what_is_cut_off_is_told(keys: Keys, sealed: bytes, left: int) -> None:
    with pytest.raises(IntegrityError, match="image is damaged or cut off"):
        all_of(decrypted(pieces(sealed[:left]), keys.identities, "image"))


@pytest.mark.parametrize("at", [0, 30, 190, 250, 1_000_000, -1])
def test_a_bit_that_turned_is_told(keys: Keys, sealed: bytes, at: int) -> None:
    hurt = bytearray(sealed)
    hurt[at] ^= 1
    with pytest.raises((IntegrityError, CredentialsError)):
        all_of(decrypted(pieces(bytes(hurt)), keys.identities, "image"))


def test_trouble_with_the_pieces_is_told_and_nothing_looks_complete(keys: Keys) -> None:
    def torn() -> Iterator[bytes]:
        yield PLAIN[: 2 * MiB]
        raise DeviceError(device="lun", offset=0, length=1, reason="Input/output error")

    got = []
    with encrypted(torn(), keys.recipients) as stream:
        with pytest.raises(DeviceError):
            got.extend(stream)
        with pytest.raises(IntegrityError):
            all_of(decrypted([b"".join(got)], keys.identities, "image"))


def test_whoever_goes_away_early_leaves_nothing(keys: Keys) -> None:
    with encrypted(pieces(PLAIN * 10), keys.recipients) as stream:
        next(stream)


def test_secrets_are_on_no_command_line(keys: Keys, sealed: bytes) -> None:
    before = psutil.Process().children()
    with decrypted(pieces(sealed), keys.identities, "image") as stream:
        next(stream)
        (child,) = set(psutil.Process().children()) - set(before)
        told = " ".join(child.cmdline()) + str(child.environ())
    assert keys.secret not in told
    assert "AGE-SECRET-KEY" not in repr(keys.identities)


def test_an_image_goes_through_both(keys: Keys) -> None:
    content = data("Abc--D" * 30)
    with (
        image_stream(MappedMemory(content, "D" * 180), lambda: 1) as image,
        encrypted(image, keys.recipients) as sealed,
    ):
        on_tape = b"".join(sealed)

    class Digest:
        def __init__(self) -> None:
            self.content = bytearray(len(content))

        def write_at(self, offset: int, plain: memoryview) -> None:
            self.content[offset : offset + len(plain)] = plain

        def zero_at(self, offset: int, length: int) -> None:
            pass

    sink = Digest()
    with decrypted(pieces(on_tape), keys.identities, "image") as opened:
        unpack(opened, sink, Expected(len(content), hashlib.sha256(content).hexdigest()), name="image")
    assert sink.content == content
    assert image.facts.sha256 == hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize("lines", [[], ["# only a comment"], ["age1qqqq"], ["ssh-dss AAAA"], ["ssh-ed25519"], ["x"]])
def test_what_is_no_recipient_is_refused(lines: list[str]) -> None:
    with pytest.raises(ConfigError):
        Recipients.of(lines)


@pytest.mark.parametrize("secret", [b"", b"# nothing\n", b"AGE-SECRET-KEY-1XYZ\n", b"\xff\xfe", b"-----BEGIN X-----"])
def test_what_is_no_identity_is_refused_and_not_shown(secret: bytes) -> None:
    with pytest.raises(CredentialsError, match="key file") as caught:
        Identities.of(secret, "key file")
    assert "XYZ" not in str(caught.value)


# An identity file as `age -p` makes it; but quick to open: it is made with a work factor of 2^8.
GUARDED = b"""\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBEeE9VM0RiWnBYZTUxNWlK
NWFQamNRIDgKMzBwb01YTXlET1drOGVqWnREUkFSWXlwdldnMWNWTzRqMXdLYXBM
ZnFZQQotLS0gNjM0cE5mUzNvZDdhdnQ2emszbVZ1a2F3Q3ZjbGNwalJ1WTRhTlIy
d2hyQQoRfu+pxPlbK/O9/JNhIAowtPu6JgK6kWKMZHs1QT9x/QqB2yarFbUxx6og
DRNL2/zUHhVVcMMB10KLsx5Uv8GkM+S4b6q0cnz/jaMwT3MSKF3vJIFhXTRfi8Y8
C5omQv3fx+gYSO/vDYOm6UNoNqcxcd6F3XGEwGoyJ6xpK/XdDKo=
-----END AGE ENCRYPTED FILE-----
"""
ITS_RECIPIENT = "age1nj6g3ukuylv3twfnmzlgmenkhg5z6z7rrg3nasxmajwye6tdgvxqxaulsk"


def test_a_file_of_identities_may_have_a_passphrase() -> None:
    sealed = all_of(encrypted(pieces(PLAIN), Recipients.of([ITS_RECIPIENT])))
    identities = Identities.of(GUARDED, "key file", lambda: "correct horse")
    assert all_of(decrypted([sealed], identities, "image")) == PLAIN
    with pytest.raises(CredentialsError, match="passphrase is wrong"):
        Identities.of(GUARDED, "key file", lambda: "battery staple")
    with pytest.raises(CredentialsError, match="none is given"):
        Identities.of(GUARDED, "key file")


@ssh_keygen
def test_a_key_of_ssh_with_a_passphrase_says_what_to_do(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "id"], check=True)
    secret = (tmp_path / "id").read_bytes()
    with pytest.raises(CredentialsError, match="ssh-keygen -p"):
        Identities.of(secret, "id")


def test_an_interrupt_at_the_very_end_waits_for_the_feeder(keys: Keys) -> None:
    rung = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield PLAIN[: 512 * KiB]
        assert rung.wait(120)
        time.sleep(0.2)

    def leave_early(alarms: ExitStack) -> None:
        with encrypted(slowly(), keys.recipients) as found:
            next(found)
            alarms.enter_context(alarm(rung=rung))

    with pytest.raises(Cancelled), ExitStack() as alarms:
        leave_early(alarms)
