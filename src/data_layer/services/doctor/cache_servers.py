"""How each server of the cache is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_layer.errors import CacheError
from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor.checks import Verdict, failed, of_error, ok, warning
from data_layer.services.doctor.clocks import judge_difference
from data_layer.services.doctor.figures import readable_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data_layer.cache.inspection import CacheInspection

    Info = dict[str, int | str]

# CLIENT TRACKING and HELLO 3 came with 6.0; the tests run with Redis 7.0 and Valkey 9.1.
_NEEDED = (6, 0)
_TESTED = (7, 0)
_SLOW_SECONDS = 0.02
_FEW = 0.9
_GOOD_POLICIES = frozenset({"allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu"})


async def judge_versions(inspection: CacheInspection) -> list[Verdict]:
    """Whether each is new enough, and of the kind that the settings say."""
    return _all((_judge_version(name, info, inspection) for name, info in (await inspection.info()).items()))


def _judge_version(name: str, info: Info, inspection: CacheInspection) -> Verdict:
    is_valkey = info.get("server_name") == "valkey"
    text = str(info.get("valkey_version") if is_valkey else info.get("redis_version", "?"))
    mode = info.get("redis_mode", info.get("server_mode", "standalone"))
    if (mode == "cluster") != (inspection.address.topology == "cluster"):
        return failed(
            f"{name} is {'a node of' if mode == 'cluster' else 'no node of'} a cluster, and the settings say otherwise",
            "name the nodes in REDIS_CLUSTER_NODES instead of REDIS_HOST or REDIS_URL, or the other way round",
        )
    number = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    shown = f"{name} is {'Valkey' if is_valkey else 'Redis'} {text}"
    if number < _NEEDED:
        return failed(f"{shown}, which cannot tell what changes", "upgrade to Redis 7 or Valkey")
    if number < _TESTED:
        return warning(f"{shown}, which is older than what is tested", "upgrade to Redis 7 or Valkey")
    return ok(shown)


async def judge_writes(inspection: CacheInspection) -> Verdict:
    """Whether every server takes writes at this moment."""
    try:
        await inspection.require_writes()
    except CacheError as error:
        verdict = of_error(error)
        advice = "READONLY: name the primary; OOM: give it memory; MISCONF: its disk; NOREPLICAS: its replicas"
        return failed(verdict.meaning, verdict.advice or advice)
    return ok("every server takes writes")


async def judge_rights(inspection: CacheInspection) -> list[Verdict]:
    """Whether the user may use the commands that the cache needs."""
    user = inspection.address.login.username or "default"
    verdicts = [
        failed(
            f"{name}: {user} may not use {', '.join(forbidden)} on keys {inspection.key_pattern}",
            f"ACL SETUSER {user} ~{inspection.key_pattern} {' '.join(f'+{command.lower()}' for command in forbidden)}",
        )
        if forbidden
        else ok(f"{name}: {user} may use every command that the cache needs")
        for name, forbidden in (await inspection.forbidden_commands()).items()
    ]
    return _all(verdicts)


async def judge_memory(inspection: CacheInspection) -> list[Verdict]:
    """Whether the server makes room by removing what was used least, as a cache should."""
    return _all((_judge_memory(name, info) for name, info in (await inspection.info()).items()))


def _judge_memory(name: str, info: Info) -> Verdict:
    used, limit, policy = _number(info, "used_memory"), _number(info, "maxmemory"), str(info.get("maxmemory_policy"))
    if not limit:
        return warning(
            f"{name} has no maxmemory: it grows until its machine has no memory left, and is killed",
            "set maxmemory, and maxmemory-policy allkeys-lru",
        )
    held = f"{readable_size(used)} of {readable_size(limit)} are used"
    if policy == "noeviction":
        return warning(
            f"{name} removes nothing when it is full (noeviction): then nothing new is cached and every read asks the "
            f"database; {held}",
            "set maxmemory-policy allkeys-lru",
        )
    if policy not in _GOOD_POLICIES:
        return warning(
            f"{name} removes by {policy}, which also takes fresh marks that keep old values from coming back",
            "set maxmemory-policy allkeys-lru (where others share the server: volatile-lru)",
        )
    return ok(f"{name}: {held}, and {policy} makes room")


async def judge_persistence(inspection: CacheInspection) -> list[Verdict]:
    """Whether writing to disk, which the cache does not need, stands in its way."""
    return _all((_judge_persistence(name, info) for name, info in (await inspection.info()).items()))


def _judge_persistence(name: str, info: Info) -> Verdict:
    broken = [
        what
        for what, field in (
            ("the last snapshot", "rdb_last_bgsave_status"),
            ("the last write", "aof_last_write_status"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if broken:
        return failed(
            f"{name} could not store {' and '.join(broken)}: it refuses writes, or will",
            "see whether its disk is full; the cache needs no persistence: save '' and appendonly no switch it off",
        )
    if info.get("loading"):
        return warning(f"{name} is still reading its data from disk", "wait; the cache is not used meanwhile")
    kinds = "an append-only file" if info.get("aof_enabled") else "snapshots at most"
    return ok(f"{name} keeps {kinds}; the cache needs none, everything is in the database")


async def judge_connections(inspection: CacheInspection) -> list[Verdict]:
    """Whether there is room for clients."""
    return _all((_judge_clients(name, info) for name, info in (await inspection.info()).items()))


def _judge_clients(name: str, info: Info) -> Verdict:
    clients, limit = _number(info, "connected_clients"), _number(info, "maxclients")
    rejected = _number(info, "rejected_connections")
    shown = f"{name}: {clients} of {limit} clients are connected"
    if limit and clients > _FEW * limit:
        return warning(shown, "find out who they are with CLIENT LIST, or raise maxclients")
    return ok(shown + (f"; {rejected} were turned away since its start" if rejected else ""))


async def judge_tracking(inspection: CacheInspection) -> list[Verdict]:
    """Whether it tells what others change, without which there is no copy in the process."""
    advice = "allow CLIENT TRACKING (+client|tracking), or set REDIS_NEAR_SIZE=0 if the provider does not offer it"
    verdicts = [
        ok(f"{name} tells what changes")
        if reason is None
        else warning(f"{name} does not tell what changes, so every read asks Redis: {reason}", advice)
        for name, reason in (await inspection.forbids_tracking()).items()
    ]
    return _all(verdicts)


async def judge_latencies(inspection: CacheInspection) -> list[Verdict]:
    """Whether an answer comes sooner than the database would give it."""
    verdicts = [
        warning(
            f"{name} takes {seconds * 1000:.0f} ms for a PING", "move it nearer, or see what keeps it busy (SLOWLOG)"
        )
        if seconds > _SLOW_SECONDS
        else ok(f"{name} answers after {seconds * 1000:.1f} ms")
        for name, seconds in (await inspection.latencies()).items()
    ]
    return _all(verdicts)


async def judge_clocks(inspection: CacheInspection) -> list[Verdict]:
    """Whether their clocks agree with ours."""
    differences = await inspection.clock_differences()
    return _all((judge_difference(*figures, f"{name}'s") for name, figures in differences.items()))


def _all(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """One line where all is well, however many servers there are; or else one for each that is not."""
    found = list(verdicts)
    bad = [verdict for verdict in found if verdict.outcome is not Outcome.OK]
    return bad or [ok("; ".join(verdict.meaning for verdict in found))]


def _number(info: Info, field: str) -> int:
    value = info.get(field, 0)
    return value if isinstance(value, int) else 0
