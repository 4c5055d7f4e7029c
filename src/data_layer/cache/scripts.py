"""Runs a script for many keys, one key at a time: they travel together, and one that fails does not hold up others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_layer.cache import markers
from data_layer.cache.errors import ScriptUnknownError
from data_layer.errors import CacheError, CacheFullError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from data_layer.cache.commands import CommandRunner, PrimaryAccess, Script

_KEYS_AT_ONCE = 500


class Scripts:
    """The scripts of ``markers.py``, with errors as values."""

    def __init__(self, runner: CommandRunner, time_limit: float) -> None:
        self.runner = runner
        self.time_limit = time_limit
        runner.on_topology_change(self._load)

    async def answer_for_all(
        self, script: Script, keys: Collection[bytes], *arguments: bytes | int
    ) -> dict[bytes, Any | CacheError]:
        """The answer for each key, or the error in its place."""
        answers: dict[bytes, Any | CacheError] = {}
        todo = list(keys)
        for start in range(0, len(todo), _KEYS_AT_ONCE):
            chunk = todo[start : start + _KEYS_AT_ONCE]
            found = await self.runner.run_batch(
                [("EVALSHA", script.sha1, 1, key, *arguments) for key in chunk], repeatable=True
            )
            for key, answer in zip(chunk, found, strict=True):
                is_unknown = isinstance(answer, ScriptUnknownError)
                answers[key] = await self._answer(script, key, *arguments) if is_unknown else answer
        return answers

    async def run_for_all(
        self, script: Script, keys: Collection[bytes], *arguments: bytes | int
    ) -> dict[bytes, CacheError]:
        """The keys for which it failed."""
        answers = await self.answer_for_all(script, keys, *arguments)
        return {key: answer for key, answer in answers.items() if isinstance(answer, CacheError)}

    async def run_at(
        self, primary: PrimaryAccess, script: Script, keys: Iterable[bytes], *arguments: bytes | int
    ) -> None:
        """The same at one primary that nobody else may use yet.

        Raises:
            CacheError: when it failed for a key, unless the server was too full to store what the script wanted to.
        """
        todo = list(keys)
        if not todo:
            return
        for start in range(0, len(todo), _KEYS_AT_ONCE):
            chunk = todo[start : start + _KEYS_AT_ONCE]
            answers = await primary.run_batch([("EVALSHA", script.sha1, 1, key, *arguments) for key in chunk])
            for answer in answers:
                if isinstance(answer, CacheError) and not isinstance(answer, CacheFullError):
                    raise answer

    async def _load(self, primary: PrimaryAccess) -> None:
        """So that no script has to be sent twice, which would put it behind what was asked for after it."""
        await primary.run_batch([("SCRIPT", "LOAD", script.text) for script in markers.ALL])

    async def _answer(self, script: Script, key: bytes, *arguments: bytes | int) -> Any | CacheError:
        try:
            return await self.runner.eval(script, key, *arguments, repeatable=True)
        except CacheError as error:
            return error
