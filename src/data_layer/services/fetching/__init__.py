"""Files from the internet, fetched so that nobody reaches our own network through us."""

from data_layer.services.fetching.addresses import IPAddress, is_public
from data_layer.services.fetching.fetcher import Fetcher

__all__ = ["Fetcher", "IPAddress", "is_public"]
