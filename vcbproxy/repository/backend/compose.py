"""How wrappers are put round a storage: the one place that knows their order.

    repository ─▶ cache ─▶ retry ─▶ limit ─▶ (faults, in tests) ─▶ storage

What the cache has costs neither time nor line; each new attempt does cost line.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from vcbproxy.clock import Clock
from vcbproxy.config import Cache, Day, Limit, Traffic
from vcbproxy.repository import cachedir
from vcbproxy.repository.backend.base import Backend
from vcbproxy.repository.backend.cache import CachingBackend
from vcbproxy.repository.backend.limit import LimitedBackend, Window
from vcbproxy.repository.backend.retry import Patience, RetryingBackend, never
from vcbproxy.units import GiB, MiB

_UNREACHED_S = 10


def patient(
    storage: Backend,
    traffic: Traffic,
    clock: Clock,
    chance: random.Random,
    interrupted: Callable[[], bool] = never,
    *,
    watched: bool = False,
) -> Backend:
    """The storage, limited as configured and tried again when it is away.

    Args:
        storage: at the bottom.
        traffic: how patiently and how fast.
        clock: the time.
        chance: spreads the waits.
        interrupted: once true nobody waits any more.
        watched: somebody waits at a terminal: a place that was never reached yet is soon given up.
    """
    backend = (
        LimitedBackend(storage, list(map(_window, traffic.limits)), clock, interrupted) if traffic.limits else storage
    )
    unreached_s = min(_UNREACHED_S, traffic.retry_s) if watched else None
    patience = Patience(traffic.retry_s, unreached_s=unreached_s)
    return RetryingBackend(backend, clock, chance, patience, interrupted)


def cached(backend: Backend, repository_id: str, cache: Cache) -> Backend:
    """With local copies, where a request costs a round trip and they are wanted."""
    if not (cache.enabled and backend.traits.remote):
        return backend
    directory = cachedir.opened(cache.directory or cachedir.default_root(), repository_id, "files")
    return CachingBackend(backend, directory, int(cache.size_gib * GiB)) if directory else backend


def _window(limit: Limit) -> Window:
    def rate(mib_s: float | None) -> float | None:
        return None if mib_s is None else mib_s * MiB

    days = list(Day)
    return Window(
        limit.begin,
        limit.end,
        rate(limit.upload_mib_s),
        rate(limit.download_mib_s),
        frozenset(days.index(day) for day in limit.days),
    )
