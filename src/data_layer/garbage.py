"""When Python looks for garbage: seldom while a process imports, as it does by itself while the process serves."""

from __future__ import annotations

import gc

_OWN_THRESHOLD = gc.get_threshold()[0]  # It differs between versions of Python.
_WHILE_IMPORTING = 20_000


def begin_importing() -> None:
    """Look seldom.

    Imports make 200,000 objects that stay. With Python's own threshold, looking through them again and again takes a
    seventh of the time in which a service starts.
    """
    gc.set_threshold(_WHILE_IMPORTING)


def end_importing() -> None:
    """Look as often as Python does by itself, but never again at what there is now.

    Looking at all of it would stop every request for 0.2 s.
    """
    gc.set_threshold(_OWN_THRESHOLD)
    gc.freeze()
