"""Object Lock: the server refuses to remove a file before a day that was set, whoever asks.

    packs, index files, keys, config    the days that are wanted, and some more: see ``Keeping``
    snapshot records                    exactly the days that are wanted: none outlives what it needs
    locks                               never: they must go when their job run ends
    notes of prune and check            never: they must go when what they speak of is gone

In ``compliance`` mode nobody shortens it; in ``governance`` those with s3:BypassGovernanceRetention may. We never ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from vcbproxy import config
from vcbproxy.clock import Clock
from vcbproxy.repository.backend.base import FileKind, FileName, Keeping
from vcbproxy.repository.backend.s3.failures import wrapped
from vcbproxy.repository.backend.s3.place import Place

_SLACK_MIN = timedelta(days=2)
_SLACK_MAX = timedelta(days=30)
_NEVER_LOCKED = (FileKind.LOCK, FileKind.WAITING, FileKind.SUSPECT)


def keeping_for(days: int) -> Keeping:
    """How long for so many days: the slack is a quarter of them, from two days to a month."""
    least = timedelta(days=days)
    return Keeping(least, min(max(least / 4, _SLACK_MIN), _SLACK_MAX))


def kept_until(head: Mapping[str, Any]) -> datetime | None:
    """Until when an object is locked, by the answer to HEAD."""
    until = head.get("ObjectLockRetainUntilDate")
    return until.astimezone(UTC) if isinstance(until, datetime) else None


def shown(until: datetime) -> str:
    """For messages."""
    return until.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


class ObjectLock:
    """Locks files of one bucket."""

    def __init__(self, place: Place, client: Any, mode: str, days: int, clock: Clock) -> None:
        self._place = place
        self._client = client
        self._mode = mode
        self._keeping = keeping_for(days)
        self._clock = clock

    @classmethod
    def of(cls, place: Place, client: Any, settings: config.S3, clock: Clock) -> ObjectLock | None:
        """As configured; None when files are not to be locked."""
        if settings.object_lock is config.ObjectLock.OFF or settings.object_lock_days is None:
            return None
        return cls(place, client, settings.object_lock.value.upper(), settings.object_lock_days, clock)

    @property
    def keeping(self) -> Keeping:
        """How long."""
        return self._keeping

    def at_creation(self, name: FileName) -> dict[str, Any]:
        """What a request says that makes a file."""
        if name.kind in _NEVER_LOCKED:
            return {}
        more = timedelta() if name.kind is FileKind.SNAPSHOT else self._keeping.slack
        return {
            "ObjectLockMode": self._mode,
            "ObjectLockRetainUntilDate": self._clock.now() + self._keeping.least + more,
        }

    def kept_until(self, name: FileName) -> datetime | None:
        """As HEAD says."""
        with wrapped(self._place, f"look at the lock of {name.path}", name):
            return kept_until(self._client.head_object(**self._where(name)))

    def keep_until(self, name: FileName, until: datetime) -> None:
        """Set it; the server refuses to shorten a compliance lock."""
        with wrapped(self._place, f"lock {name.path}", name):
            self._client.put_object_retention(
                **self._where(name), Retention={"Mode": self._mode, "RetainUntilDate": until}
            )

    def _where(self, name: FileName) -> dict[str, Any]:
        return {"Bucket": self._place.bucket, "Key": self._place.key(name.path)}
