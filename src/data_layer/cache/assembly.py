"""The parts of an open cache, wired."""

from __future__ import annotations

from dataclasses import dataclass

from data_layer.cache.address import CacheAddress
from data_layer.cache.codec import Codec
from data_layer.cache.commands import CommandRunner
from data_layer.cache.entries import Entries
from data_layer.cache.keys import Namespace
from data_layer.cache.loading import Loading
from data_layer.cache.markers import Scripts
from data_layer.cache.near import NearCopy
from data_layer.cache.observed import CommandObserver
from data_layer.cache.recently_stored import RecentlyStored
from data_layer.cache.statistics import Counters
from data_layer.cache.tracking import FailoverGuard, Tracking
from data_layer.cache.write_intents import WriteIntents
from data_layer.concurrency import Background
from data_layer.settings.redis import RedisSettings

_SHARE_OF_RECENTLY_STORED = 16
"""One in so many of the bytes for copies of values (REDIS_NEAR_SIZE)."""


@dataclass(frozen=True, slots=True)
class OpenCache:
    """What exists while the cache is open."""

    runner: CommandRunner
    near: NearCopy
    tracking: Tracking
    intents: WriteIntents
    entries: Entries
    loading: Loading
    background: Background
    counters: Counters
    time_limit: float

    async def close(self) -> None:
        """End everything, in an order in which each part still has what it needs."""
        await self.tracking.stop()
        await self.loading.close()
        await self.intents.close()
        await self.background.finish(self.time_limit)
        await self.runner.close()


def assemble(
    settings: RedisSettings,
    address: CacheAddress,
    namespace: Namespace,
    codec: Codec,
    observer: CommandObserver | None = None,
) -> OpenCache:
    """Open nothing yet, but begin to listen for changes.

    Raises:
        ConfigurationError: when REDIS_TLS_CA holds no certificate.
    """
    counters = Counters()
    time_limit = settings.redis_command_timeout / 1000
    background = Background()
    runner = _make_runner(address, settings, counters, observer)
    recently_stored = RecentlyStored(settings.redis_near_size // _SHARE_OF_RECENTLY_STORED)
    near = NearCopy(codec, settings.redis_near_size - recently_stored.capacity)
    scripts = Scripts(runner, time_limit)
    # Registered first: what this process has changed must reach a new server before anything is read from it.
    intents = WriteIntents(scripts, near, namespace, background)
    guard = FailoverGuard()
    tracking = Tracking(runner, near, namespace, guard)
    entries = Entries(
        runner=runner,
        codec=codec,
        namespace=namespace,
        near=near,
        recently_stored=recently_stored,
        renew_trust=tracking.renew_trust,
        intents=intents,
        background=background,
        counters=counters,
        jitter=settings.redis_ttl_jitter,
    )
    loading = Loading(entries, tracking, guard)
    tracking.start()
    return OpenCache(runner, near, tracking, intents, entries, loading, background, counters, time_limit)


def _make_runner(
    address: CacheAddress, settings: RedisSettings, counters: Counters, observer: CommandObserver | None
) -> CommandRunner:
    if observer is None:
        return CommandRunner(address, settings, counters)
    # Here because hardly anybody observes.
    from data_layer.cache.observed import ObservedCommandRunner

    return ObservedCommandRunner(address, settings, counters, observer)
