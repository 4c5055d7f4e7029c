"""Files from the internet, fetched so that nobody reaches our own network through us."""

from data_layer.services.fetching.fetcher import Fetcher
from data_layer.services.fetching.urls import IPAddress, is_public

__all__ = ["Fetcher", "IPAddress", "is_public"]
