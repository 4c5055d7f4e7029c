"""The composition root: opens, wires and closes everything; the only package that knows everything."""

from data_layer.layer.admin import (
    create_storage,
    describe_database,
    open_cache,
    open_migrator,
    open_statistics,
    open_storage,
    open_transactions,
    probe,
)
from data_layer.layer.data_layer import DataLayer
from data_layer.layer.servers import run_in_thread

__all__ = [
    "DataLayer",
    "create_storage",
    "describe_database",
    "open_cache",
    "open_migrator",
    "open_statistics",
    "open_storage",
    "open_transactions",
    "probe",
    "run_in_thread",
]
