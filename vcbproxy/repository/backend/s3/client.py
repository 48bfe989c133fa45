"""boto3's client for one place. Keys come from its own chain: environment, profiles, SSO, the machine's role."""

from __future__ import annotations

import os
from typing import Any

import boto3
import botocore.config
from botocore.exceptions import BotoCoreError

from vcbproxy import config
from vcbproxy.errors import ConfigError
from vcbproxy.repository.backend.s3 import failures
from vcbproxy.repository.backend.s3.place import Place

ATTEMPTS = 3
"""botocore's own, with jittered waits, for what passes by in a moment; longer troubles are for whoever calls us."""


def connect(place: Place, settings: config.S3, attempts: int = ATTEMPTS) -> Any:
    """A client; many threads may use it. Nothing is sent yet.

    Args:
        place: where to.
        settings: how.
        attempts: how often botocore makes each request at most.

    Raises:
        CredentialsError: the profile is not there.
        ConfigError: endpoint, region or CA file are not usable.
    """
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise ConfigError(f"repository.s3.ca_file: {settings.ca_file} is not there")
    try:
        session = boto3.session.Session(profile_name=settings.profile)
        region = settings.region or place.region or session.region_name or "us-east-1"
        return session.client(
            "s3",
            region_name=region,
            endpoint_url=None if place.amazon else place.endpoint,
            verify=os.fspath(settings.ca_file) if settings.ca_file else None,
            config=_options(place, settings, attempts),
        )
    except BotoCoreError as error:
        raise failures.translated(error, place, "connect") from error
    except ValueError as error:  # "Invalid endpoint", which botocore raises plainly
        raise ConfigError(f"{place.location}: {error}") from error


def _options(place: Place, settings: config.S3, attempts: int) -> botocore.config.Config:
    addressing = settings.addressing.value
    if settings.addressing is config.Addressing.AUTO and not place.amazon:
        addressing = "path"  # a server of one's own seldom has a name for each bucket
    return botocore.config.Config(
        signature_version="s3v4",
        s3={
            "addressing_style": addressing,
            "payload_signing_enabled": False,  # the checksum is signed, and known; another one costs 10 ms a pack
        },
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=2 * settings.connections + 2,
        request_checksum_calculation="when_required",  # we give our own, which are known already
        response_checksum_validation="when_required",  # everything read is checked by mac and digest
        tcp_keepalive=True,
        user_agent_extra="vcbproxy",
    )
