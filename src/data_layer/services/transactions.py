"""How services get their transactions: the composition root hands them this."""

from __future__ import annotations

from collections.abc import Callable

from data_layer.repositories.unit_of_work import UnitOfWork

Transactions = Callable[[], UnitOfWork]
