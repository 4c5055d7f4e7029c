"""Values with a time to live, kept in Redis or Valkey under this application's prefix."""

from data_layer.cache.cache import Cache
from data_layer.cache.keys import TimeToLive
from data_layer.cache.statistics import CacheStatistics, NearCopyStatistics, ProcessStatistics, ServerStatistics

__all__ = ["Cache", "CacheStatistics", "NearCopyStatistics", "ProcessStatistics", "ServerStatistics", "TimeToLive"]
