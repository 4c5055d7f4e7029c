"""What is stored at a key in place of a value, and the scripts that change it in one step of the server.

A *lease* (kind 2) is the token of the caller that loads the value. Only the holder can turn it into a value, by
comparing and setting; so a reader that is late, however late, never puts back what was loaded before a change.

*Intents* (kind 3) are the tokens of writers that are between "I am about to commit" and "it is decided", each with a
deadline in milliseconds of the server's clock. While there is one, no lease is given. What a crashed writer leaves
behind lasts until its deadline. Deadlines never descend, so that those that have passed are at the beginning, and the
key lives until the last one.

A *lock* (kind 4) is the last fencing token and, while it is held, the token of the holder.

Every script touches one key, so that it works in a cluster; those of writers take several where there is only one
server. All numbers are whole and below 2**53, which is what Lua
can count with.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterable, Sequence

from data_layer.cache.codec import INTENTS, LEASE, LOCK, VERSION
from data_layer.cache.commands import CommandRunner, NodeAccess, Script, Sent
from data_layer.cache.errors import ScriptUnknownError
from data_layer.cache.wire.connection import Command
from data_layer.errors import CacheError, CacheFullError

TOKEN_SIZE = 16
_DEADLINE_SIZE = 13
_INTENT_SIZE = TOKEN_SIZE + _DEADLINE_SIZE
VALUE, FREE, WAIT, CLOSED, REPLACED = range(5)
"""What TAKE_LEASE found: a value; or the lease is yours, another's, or not given now.

REPLACED: it is yours, and something that is not a value made room for it.
"""


def new_token() -> bytes:
    """Random, so that it is unique."""
    return secrets.token_bytes(TOKEN_SIZE)


def lease(token: bytes) -> bytes:
    """What is stored at a key while its value is being loaded."""
    return VERSION + bytes((LEASE,)) + token


_KINDS = f"""
local LEASE, INTENTS, LOCK = '\\193\\{LEASE}', '\\193\\{INTENTS}', '\\193\\{LOCK}'
"""

_STORED = """
-- The kind of what is stored: '' for a value, also one of another data type; nil for nothing.
local stored = redis.pcall('GET', KEY)
local kind = nil
if type(stored) == 'table' then
  stored, kind = '', ''
elseif stored then
  kind = string.sub(stored, 1, 2)
  if kind ~= LEASE and kind ~= INTENTS and kind ~= LOCK then kind = '' end
end
"""

_BEGINNING = f"{_KINDS}\nlocal KEY = KEYS[1]\n{_STORED}"

_FULL = -1

_FOR_EACH_KEY = f"""{_KINDS}
-- The stored texts: false for nothing, and for another data type. One command, because each costs more than its work.
local texts = redis.call('MGET', unpack(KEYS))
local answers = {{}}
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- The intents of others that are not past their deadline. They stand in the order of their deadlines, so that nothing
-- has to be taken apart here when many writers are at work.
local function others(text, now)
  local first = 3
  while first < #text and tonumber(string.sub(text, first + {TOKEN_SIZE}, first + {_INTENT_SIZE - 1})) <= now do
    first = first + {_INTENT_SIZE}
  end
  local own = ARGV[1] ~= '' and string.find(text, ARGV[1], first, true)
  if not own then return string.sub(text, first) end
  return string.sub(text, first, own - 1) .. string.sub(text, own + {_INTENT_SIZE})
end
local function latest(intents) return tonumber(string.sub(intents, -{_DEADLINE_SIZE})) end
"""
"""The beginning of a script with one whole number as its answer for each of its keys."""

ANNOUNCE = Script(
    _FOR_EACH_KEY
    + f"""
local now = milliseconds()
for number, key in ipairs(KEYS) do
  local kept, deadline = '', now + ARGV[2]
  local text = texts[number]
  if text and string.sub(text, 1, 2) == INTENTS then kept = others(text, now) end
  if kept ~= '' then deadline = math.max(deadline, latest(kept)) end  -- In order, also if the clock went back.
  local intents = INTENTS .. kept .. ARGV[1] .. string.format('%0{_DEADLINE_SIZE}.0f', deadline)
  local answer = redis.pcall('SET', key, intents, 'PX', deadline - now)
  answers[number] = 1
  if answer.err then
    -- The server is full, or else refuses this too. Without room for intents there is none for a value either.
    redis.call('UNLINK', key)
    answers[number] = {_FULL}
  end
end
return answers
"""
)
"""Adds the intent ARGV[1] with a life of ARGV[2] milliseconds, in place of any value or lease.

-1: the server is full.
"""

SETTLE = Script(
    _FOR_EACH_KEY
    + f"""
local removed = {{}}
for number, key in ipairs(KEYS) do
  local text = texts[number]
  local kind = text and string.sub(text, 1, 2)
  answers[number] = 0
  if not text then
    -- Also where there is nothing: a replica refuses it, instead of saying that all is well.
    answers[number] = redis.call('UNLINK', key)
  elseif kind == INTENTS then
    local kept, now = '', 0
    if #text ~= {2 + _INTENT_SIZE} or string.sub(text, 3, {2 + TOKEN_SIZE}) ~= ARGV[1] then
      now = milliseconds()
      kept = others(text, now)
    end
    if kept == '' then
      removed[#removed + 1] = key
    elseif #kept + 2 < #text then
      redis.call('SET', key, INTENTS .. kept, 'PX', latest(kept) - now)
    end
  elseif kind ~= LOCK then
    removed[#removed + 1] = key
    if kind ~= LEASE then answers[number] = 1 end
  end
end
if #removed > 0 then redis.call('UNLINK', unpack(removed)) end
return answers
"""
)
"""Removes the value, the lease and the intent ARGV[1], which may be empty; others' intents stay. 1: it was a value."""

TAKE_LEASE = Script(
    _BEGINNING
    + f"""
if kind == '' and ARGV[3] == '0' and stored ~= '' then return {{stored, redis.call('PTTL', KEY)}} end
if kind == INTENTS or kind == LOCK then return {CLOSED} end
if kind == LEASE and ARGV[3] == '0' then return {WAIT} end
redis.call('SET', KEY, LEASE .. ARGV[1], 'PX', ARGV[2])
return kind == '' and ARGV[3] == '0' and {REPLACED} or {FREE}
"""
)
"""The value and its milliseconds; or else a lease ARGV[1] for ARGV[2] milliseconds.

ARGV[3] = 1 replaces a value or another's lease.
"""

FILL = Script(
    _BEGINNING
    + """
if kind ~= LEASE or stored ~= LEASE .. ARGV[1] then return 0 end
redis.call('SET', KEY, ARGV[2], 'PX', ARGV[3])
return 1
"""
)
"""Turns the lease ARGV[1] into the value ARGV[2] for ARGV[3] milliseconds. 0: it is no longer there."""

RENEW_LEASE = Script(
    _BEGINNING
    + """
if kind ~= LEASE or stored ~= LEASE .. ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEY, ARGV[2])
"""
)
"""Lets the lease ARGV[1] live ARGV[2] milliseconds from now."""

RETURN_LEASE = Script(
    _BEGINNING
    + """
if kind ~= LEASE or stored ~= LEASE .. ARGV[1] then return 0 end
return redis.call('UNLINK', KEY)
"""
)
"""Removes the lease ARGV[1]."""

REPLACE_MARKER = Script(
    _BEGINNING
    + """
if kind ~= LEASE and kind ~= INTENTS then return 0 end
if ARGV[1] then redis.call('SET', KEY, ARGV[1], 'PX', ARGV[2]) else redis.call('UNLINK', KEY) end
return 1
"""
)
"""Stores ARGV[1] for ARGV[2] milliseconds, or nothing, in place of a lease or intents; says whether it did."""

HAS_VALUE = Script(_BEGINNING + "return kind == '' and 1 or 0")
TIME_LEFT = Script(_BEGINNING + "return kind == '' and redis.call('PTTL', KEY) or -2")
"""Milliseconds of a value, -1 without end, -2 without a value."""

SET_LIFE = Script(
    _BEGINNING
    + """
if kind ~= '' then return 0 end
if ARGV[2] == '1' then
  local left = redis.call('PTTL', KEY)
  if left == -1 or left >= tonumber(ARGV[1]) then return 1 end
end
return redis.call('PEXPIRE', KEY, ARGV[1])
"""
)
"""Gives a value ARGV[1] milliseconds; with ARGV[2] = 1 only if it has less. Says whether there was a value."""

_LOCK = f"""
-- 16 digits of the last fencing token, and the token of the holder if there is one.
local last, holder = 0, ''
if kind == LOCK then
  last = tonumber(string.sub(stored, 3, 18))
  holder = string.sub(stored, 19, {18 + TOKEN_SIZE})
end
"""

LOCK_KEY = Script(
    _BEGINNING
    + _LOCK
    + """
if holder ~= '' and holder ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local fence = math.max(last + 1, time[1] * 1000000 + time[2])
redis.call('SET', KEY, LOCK .. string.format('%016.0f', fence) .. ARGV[1], 'PX', ARGV[2])
return fence
"""
)
"""Locks for the holder ARGV[1] and ARGV[2] milliseconds, and gives the fencing token; 0: another one holds it.

The token is the server's time in microseconds, or one more than the last token where the clock went back. So it grows
even when the server has lost everything.
"""

RENEW_LOCK = Script(
    _BEGINNING
    + _LOCK
    + """
if holder ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEY, ARGV[2])
"""
)
"""Lets the lock of the holder ARGV[1] last ARGV[2] milliseconds from now; 0: it is no longer the holder's."""

UNLOCK = Script(
    _BEGINNING
    + _LOCK
    + """
if holder ~= ARGV[1] then return 0 end
redis.call('SET', KEY, string.sub(stored, 1, 18), 'PX', ARGV[2])
return 1
"""
)
"""Ends the lock of the holder ARGV[1]; the last fencing token stays for ARGV[2] milliseconds."""

ALL = (
    *(ANNOUNCE, SETTLE, TAKE_LEASE, FILL, RENEW_LEASE, RETURN_LEASE),
    *(REPLACE_MARKER, HAS_VALUE, TIME_LEFT, SET_LIFE, LOCK_KEY, RENEW_LOCK, UNLOCK),
)


_KEYS_AT_ONCE = 500
_KEYS_OF_ONE_COMMAND = 20


class Scripts:
    """The scripts of ``markers.py``, with errors as values."""

    def __init__(self, runner: CommandRunner, time_limit: float) -> None:
        self.runner = runner
        self.time_limit = time_limit
        runner.on_topology_change(self._load)

    async def answer_for_all(
        self, script: Script, keys: Collection[bytes], *arguments: bytes | int
    ) -> dict[bytes, int | CacheError]:
        """The answer for each key, or the error in its place."""
        answers: dict[bytes, int | CacheError] = {}
        todo = list(keys)
        for start in range(0, len(todo), _KEYS_AT_ONCE):
            chunk = todo[start : start + _KEYS_AT_ONCE]
            answers |= await self.finish(self.begin(script, chunk, *arguments), script, chunk, *arguments)
        return answers

    def begin(self, script: Script, keys: Sequence[bytes], *arguments: bytes | int) -> Sent:
        """Send the script for a few keys before anything that is sent later, if that needs no waiting."""
        return self.runner.begin([_call(script, some, *arguments) for some in self._together(keys)])

    async def finish(
        self,
        sent: Sent,
        script: Script,
        keys: Sequence[bytes],
        *arguments: bytes | int,
        deadline: float | None = None,
    ) -> dict[bytes, int | CacheError]:
        """The answers to what ``begin`` was called with; see ``CommandRunner.finish`` for the deadline."""
        answers: dict[bytes, int | CacheError] = {}
        for some, found in zip(self._together(keys), await self.runner.finish(sent, deadline), strict=True):
            if isinstance(found, ScriptUnknownError):
                async with asyncio.timeout_at(deadline):
                    answers |= {key: await self._answer(script, key, *arguments) for key in some}
            elif isinstance(found, CacheError):
                answers |= dict.fromkeys(some, found)
            else:
                answers.update(zip(some, map(_checked, found), strict=True))
        return answers

    def _together(self, keys: Sequence[bytes]) -> list[Sequence[bytes]]:
        """The keys of each command."""
        most = _KEYS_OF_ONE_COMMAND if self.runner.has_one_server else 1
        return [keys] if len(keys) <= most else [keys[start : start + most] for start in range(0, len(keys), most)]

    async def run_for_all(
        self, script: Script, keys: Collection[bytes], *arguments: bytes | int
    ) -> dict[bytes, CacheError]:
        """The keys for which it failed."""
        answers = await self.answer_for_all(script, keys, *arguments)
        return {key: answer for key, answer in answers.items() if isinstance(answer, CacheError)}

    async def run_at(self, primary: NodeAccess, script: Script, keys: Iterable[bytes], *arguments: bytes | int) -> None:
        """The same at one primary that nobody else may use yet.

        Raises:
            CacheError: when it failed for a key, unless the server was too full to store what the script wanted to.
        """
        todo = list(keys)
        if not todo:
            return
        for start in range(0, len(todo), _KEYS_AT_ONCE):
            chunk = todo[start : start + _KEYS_AT_ONCE]
            answers = await primary.run_batch([_call(script, some, *arguments) for some in self._together(chunk)])
            for answer in answers:
                if isinstance(answer, CacheError) and not isinstance(answer, CacheFullError):
                    raise answer

    async def _load(self, primary: NodeAccess) -> None:
        """So that no script has to be sent twice, which would put it behind what was asked for after it."""
        await primary.run_batch([("SCRIPT", "LOAD", script.text) for script in ALL])

    async def _answer(self, script: Script, key: bytes, *arguments: bytes | int) -> int | CacheError:
        try:
            [answer] = await self.runner.eval(script, key, *arguments, repeatable=True)
        except CacheError as error:
            return error
        return _checked(answer)


def _call(script: Script, keys: Sequence[bytes], *arguments: bytes | int) -> Command:
    return ("EVALSHA", script.sha1, len(keys), *keys, *arguments)


def _checked(answer: int) -> int | CacheError:
    return CacheFullError("Redis is full (maxmemory)") if answer == _FULL else answer
