"""Every error of ours survives being copied and pickled, whole."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from multiprocessing import get_context
from typing import Any, NoReturn

import pytest

import data_layer.cache.errors  # noqa: F401  (defines another one)
from data_layer import errors
from data_layer.errors import DataLayerError, TooManyAttemptsError, WorkerFailedError

OWN_VALUES: dict[type[DataLayerError], dict[str, Any]] = {
    errors.BudgetExceededError: {"remaining": Decimal("0.5")},
    errors.ChangedMeanwhileError: {"wanted": {"name": "a"}, "current": {"name": "b"}},
    errors.GenerationEndedError: {"status": "failed"},
    errors.SecondFactorRequiredError: {"challenge": ("signed", 300)},
    errors.WeakPasswordError: {"field": "new", "reason": "common"},
    errors.StillRunningError: {"retry_after": 2.5},
}
PROBLEM: dict[str, Any] = {"status": 409, "problem_code": "budget_exceeded", "request_id": "1f0c", "fields": {"a": "b"}}


def every_class(kind: type[DataLayerError] = DataLayerError) -> Iterator[type[DataLayerError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from every_class(each)


def make(kind: type[DataLayerError]) -> DataLayerError:
    values: dict[str, Any] = {}
    if issubclass(kind, (errors.TooManyAttemptsError, errors.TooManyRequestsError)):
        values = {"retry_after": 2.5}
    elif issubclass(kind, errors.ProblemError):
        values = PROBLEM
    elif kind in OWN_VALUES:
        values = OWN_VALUES[kind]
    elif issubclass(kind, (errors.InvalidValueError, errors.ConflictError)):
        values = {"field": "email"}
    error = kind(
        "one", *(["two"] if issubclass(kind, (errors.ConfigurationError, WorkerFailedError)) else []), **values
    )
    error.add_note("a note")
    vars(error)["more"] = {"known": [1, 2]}
    error.__cause__ = ValueError("the cause")
    return error


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda error: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301


WAYS: dict[str, Callable[[Any], Any]] = {"copy": copy.copy, "deepcopy": copy.deepcopy} | {
    f"pickle {protocol}": pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("kind", sorted(set(every_class()), key=str))
def test_every_class_travels_whole(kind: type[DataLayerError]) -> None:
    error = make(kind)
    for way, travelled in WAYS.items():
        twin = travelled(error)
        assert type(twin) is kind, way
        assert twin is not error, way
        assert (str(twin), twin.args, twin.code) == (str(error), error.args, error.code), way
        assert vars(twin) == vars(error), way
        assert repr(twin.__cause__) == repr(error.__cause__) == "ValueError('the cause')", way
        assert twin.__suppress_context__, way


class AwkwardError(Exception):
    def __init__(self, *, lock: object) -> None:
        super().__init__("awkward")
        self.lock = lock


@pytest.mark.parametrize("way", [way for way in WAYS if way != "copy"])
def test_a_cause_that_cannot_travel_is_quoted(way: str) -> None:
    error = TooManyAttemptsError("wait", retry_after=1)
    error.__cause__ = AwkwardError(lock=threading.Lock())
    twin = WAYS[way](error)
    assert str(twin.__cause__) == "AwkwardError: awkward"
    assert twin.retry_after == 1


def test_no_cause_stays_none() -> None:
    assert pickle.loads(pickle.dumps(DataLayerError("x"))).__cause__ is None  # noqa: S301


def fail() -> NoReturn:
    raise TooManyAttemptsError("wait", retry_after=7.0)


def test_a_process_pool_survives_them() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for _ in range(2):
            with pytest.raises(TooManyAttemptsError) as caught:
                pool.submit(fail).result()
            assert (caught.value.retry_after, caught.value.code) == (7.0, "too_many_attempts")
