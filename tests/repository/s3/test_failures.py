"""What goes wrong with a server is said in our words, with what to do next."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import botocore.exceptions
import pytest

from tests.contract.backend import name_of
from tests.faultproxy import FaultProxy
from tests.program import ROOT
from tests.seaweed import Keys, Seaweed
from vcbproxy import config
from vcbproxy.config import S3
from vcbproxy.errors import ConfigError, CredentialsError, Error, TargetError
from vcbproxy.lab import certificate
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, Heat, Unavailable, load_all
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.repository.backend.s3 import failures
from vcbproxy.repository.backend.s3.place import Place

NAME = name_of(b"x", FileKind.PACK)
PLACE = Place.parse("s3:https://s3.example.com/bucket/x")
server = pytest.mark.xdist_group("s3")


@pytest.mark.parametrize(
    ("code", "status", "ours", "words"),
    [
        ("NoSuchKey", 404, FileMissing, "no file data/"),
        ("404", 404, FileMissing, "no file data/"),
        ("NoSuchBucket", 404, failures.BucketMissing, "no bucket bucket"),
        ("SignatureDoesNotMatch", 403, CredentialsError, "secret key is wrong"),
        ("InvalidAccessKeyId", 403, CredentialsError, "does not know this access key"),
        ("ExpiredToken", 400, CredentialsError, "expired"),
        ("AccessDenied", 403, CredentialsError, "docs/operating.md"),
        ("403", 403, CredentialsError, "docs/operating.md"),
        ("RequestTimeTooSkewed", 403, TargetError, "by NTP"),
        ("SlowDown", 503, Unavailable, "fewer requests"),
        ("500", 500, Unavailable, "500"),
        ("429", 429, Unavailable, "429"),
        ("BadDigest", 400, Unavailable, "damaged on the way"),
        ("QuotaExceeded", 403, TargetError, "raise the quota"),
        ("InvalidObjectState", 403, TargetError, "archive class"),
        ("MalformedXML", 400, TargetError, "MalformedXML: said so"),
    ],
)
def test_each_refusal_is_an_error_with_a_remedy(code: str, status: int, ours: type[Error], words: str) -> None:
    answer = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    refusal = botocore.exceptions.ClientError(answer, "GetObject")  # type: ignore[arg-type]
    found = failures.translated(refusal, PLACE, "read it", NAME)
    assert type(found) is ours
    assert words in str(found)
    assert PLACE.location in str(found)


def test_a_location_of_ours_costs_no_boto3() -> None:
    code = (
        "import sys; from vcbproxy.repository import repository; from vcbproxy.repository.backend import location; "
        "location.open_backend('/tmp/nowhere'); sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"object_lock": "compliance"}, "together"),
        ({"object_lock_days": 3}, "together"),
        ({"storage_class": "DEEP_ARCHIVE"}, "cannot be read at once"),
        ({"part_mib": 4}, "greater than or equal to 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, object], words: str) -> None:
    lines = "\n".join(f"{key} = {value!r}" for key, value in wrong.items())
    (tmp_path / "c.toml").write_text(
        f'[repository]\nlocation = "s3:https://h/b"\npassword_file = "p"\n[repository.s3]\n{lines}\n'
    )
    with pytest.raises(ConfigError, match=r"repository\.s3") as refused:
        config.load(tmp_path / "c.toml")
    assert words in str(refused.value)


def test_a_ca_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_file"):
        open_backend("s3:https://localhost/bucket", s3=S3(ca_file=tmp_path / "no.pem"))


def test_a_profile_that_is_not_there_is_named(s3_keys: Keys) -> None:
    with pytest.raises(CredentialsError, match="nobody"):
        open_backend("s3:https://localhost/bucket", s3=S3(profile="nobody"))


@server
def test_the_certificate_is_checked_against_the_configured_ca(seaweed: Seaweed, s3_keys: Keys, tmp_path: Path) -> None:
    certificate.write(tmp_path, datetime.now(UTC))
    proxy = FaultProxy(seaweed.port, certificate.server_context(tmp_path))
    bucket = seaweed.new_bucket()
    with proxy.serving():
        location = f"s3:{proxy.endpoint}/{bucket}"
        assert location.startswith("s3:https://")
        with pytest.raises(TargetError, match=r"TLS: .*repository\.s3\.ca_file"):
            open_backend(location).size(NAME)
        trusting = open_backend(location, s3=S3(ca_file=tmp_path / "ca.pem"))
        trusting.save(NAME, [b"x"])
        assert load_all(trusting, NAME, 10) == b"x"


@server
def test_only_packs_of_data_go_into_the_cold_class(s3_location: str, seaweed: Seaweed) -> None:
    backend = open_backend(s3_location, s3=S3(storage_class="STANDARD_IA"))
    cold, hot = b"data", b"trees"
    backend.save(FileName(FileKind.PACK, name_of(cold).stem, Heat.COLD), [cold])
    backend.save(FileName(FileKind.PACK, name_of(hot).stem), [hot])
    backend.save(name_of(hot, FileKind.INDEX), [hot])
    place = Place.parse(s3_location)
    listed = seaweed.client().list_objects_v2(Bucket=place.bucket)["Contents"]
    classes = {entry["Key"].removeprefix(f"{place.prefix}/"): entry.get("StorageClass") for entry in listed}
    assert classes[name_of(cold, FileKind.PACK).path] == "STANDARD_IA"
    assert {classes[name_of(hot, kind).path] for kind in (FileKind.PACK, FileKind.INDEX)} == {"STANDARD"}


@server
def test_a_list_goes_on_to_its_last_page(s3_location: str) -> None:
    backend = open_backend(s3_location)
    contents = [b"%d" % number for number in range(1005)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda content: backend.save(name_of(content), [content]), contents))
    assert {found.name for found in backend.list(FileKind.INDEX)} == set(map(name_of, contents))
