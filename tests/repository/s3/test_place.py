"""Locations are read as stock restic reads them."""

from __future__ import annotations

import pytest

from vcbproxy.errors import UsageError
from vcbproxy.repository.backend.s3.place import Place


@pytest.mark.parametrize(
    ("location", "endpoint", "bucket", "prefix"),
    [
        ("s3:https://host.example.com/bucket", "https://host.example.com", "bucket", ""),
        ("s3:https://host:9000/bucket/", "https://host:9000", "bucket", ""),
        ("s3:http://127.0.0.1:8333/bucket/some/where/", "http://127.0.0.1:8333", "bucket", "some/where"),
        ("s3:host:9000/bucket/prefix", "https://host:9000", "bucket", "prefix"),
        ("s3://host/bucket//a//b", "https://host", "bucket", "a/b"),
        ("s3:s3.amazonaws.com/bucket", "https://s3.amazonaws.com", "bucket", ""),
        ("s3:https://[::1]:9000/bucket", "https://[::1]:9000", "bucket", ""),
    ],
)
def test_host_bucket_and_prefix(location: str, endpoint: str, bucket: str, prefix: str) -> None:
    place = Place.parse(location)
    assert (place.endpoint, place.bucket, place.prefix) == (endpoint, bucket, prefix)
    assert Place.parse(place.location) == place


@pytest.mark.parametrize(
    ("location", "wrong"),
    [
        ("s3:", "no host"),
        ("s3:https://host", "no bucket"),
        ("s3:host/", "no bucket"),
        ("s3:https://key:secret@host/bucket", "keys do not belong"),
        ("s3:https://host/bucket/a/../b", r"'\.\.'"),
        ("s3:https://host/bucket?x=1", "'?'"),
        ("s3:https://host:port/bucket", "no S3 location"),
    ],
)
def test_what_names_no_bucket_is_refused(location: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong) as refused:
        Place.parse(location)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "amazon", "region"),
    [
        ("s3.amazonaws.com", True, None),
        ("s3.eu-central-1.amazonaws.com", True, "eu-central-1"),
        ("s3-us-west-2.amazonaws.com", True, "us-west-2"),
        ("s3.us-gov-west-1.amazonaws.com", True, "us-gov-west-1"),
        ("s3.amazonaws.com.evil.example", False, None),
        ("s3.eu-central-003.backblazeb2.com", False, None),
    ],
)
def test_amazon_is_known_by_its_name(host: str, amazon: bool, region: str | None) -> None:
    place = Place.parse(f"s3:https://{host}/bucket")
    assert (place.amazon, place.region) == (amazon, region)
