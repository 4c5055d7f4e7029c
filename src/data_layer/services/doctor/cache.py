"""Whether Redis or Valkey can be reached, and each server is set up as a cache with leases needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial

from data_layer.cache.address import ServerAddress, Topology
from data_layer.cache.diagnostics import CacheInspection
from data_layer.errors import CacheError, NotInitializedError
from data_layer.schemas.doctor import Outcome, Text
from data_layer.services.doctor.checks import (
    Check,
    CheckResult,
    failed,
    joined,
    judge_difference,
    listed,
    of_error,
    ok,
    reach,
    readable_size,
    some_suffice,
    unknown_location,
    warning,
)
from data_layer.settings.redis import RedisSettings

Locate = Callable[[], Awaitable[str | CheckResult | None]]

Info = dict[str, int | str]

PART = "cache"
_START_SECONDS = 60.0
_SLOTS = 16_384


class CacheTarget:
    """The servers that are looked at."""

    def __init__(self, settings: RedisSettings, time_limit: float) -> None:
        self.settings = settings
        self.time_limit = time_limit
        self._inspection: CacheInspection | None = None

    def use(self, url: str | None) -> None:
        """Look at this server, or for None at those of the settings."""
        patience = min(self.settings.redis_connect_timeout, int(self.time_limit * 500))
        self._inspection = CacheInspection(self.settings.unchecked(redis_connect_timeout=patience), url)

    async def close(self) -> None:
        """Close the connections."""
        if self._inspection is not None:
            await self._inspection.__aexit__()

    @property
    def inspection(self) -> CacheInspection:
        """Asks the servers."""
        if self._inspection is None:
            raise NotInitializedError("the servers are not known before the check that finds them")
        return self._inspection


def cache_checks(target: CacheTarget, locate: Locate | None) -> list[Check]:
    """The checks of the cache, those first that others need.

    Args:
        target: what is found out is kept there.
        locate: says where the embedded server is, after starting it, or that there is none yet; None means the servers
            of the settings. No function: the settings do not say where it is.
    """
    login = ("login",)

    def check(
        name: str, look: Callable[[CacheTarget], Awaitable[CheckResult | list[CheckResult]]], *needs: str
    ) -> Check:
        return Check(PART, name, partial(look, target), needs)

    def servers(name: str, look: Callable[[CacheInspection], Awaitable[CheckResult | list[CheckResult]]]) -> Check:
        async def look_at_servers() -> CheckResult | list[CheckResult]:
            return await look(target.inspection)

        return Check(PART, name, look_at_servers, login)

    limit = max(_START_SECONDS, target.time_limit) if target.settings.is_embedded else None
    return [
        Check(PART, "server", partial(_locate, target, locate), time_limit=limit),
        check("address", _reach, "server"),
        check("topology", _judge_topology, "address"),
        check("login", _log_in, "address"),
        check("tls", _judge_encryption, "login"),
        servers("version", judge_versions),
        servers("writes", judge_writes),
        servers("rights", judge_rights),
        servers("memory", judge_memory),
        servers("persistence", judge_persistence),
        servers("connections", judge_connections),
        servers("tracking", judge_tracking),
        servers("latency", judge_latencies),
        servers("clock", judge_clocks),
    ]


async def _locate(target: CacheTarget, locate: Locate | None) -> CheckResult:
    if locate is None:
        return unknown_location("Redis")
    found = await locate()
    if isinstance(found, CheckResult):
        return found
    target.use(found)
    address = target.inspection.address
    if target.settings.is_embedded:
        return ok("embedded Valkey at %(address)s", address=str(address))
    match address.topology:
        case Topology.SINGLE:
            return ok("the settings name one server: %(address)s", address=str(address))
        case Topology.SENTINEL:
            return ok("the settings name sentinels: %(address)s", address=str(address))
        case Topology.CLUSTER:
            return ok("the settings name a cluster: %(address)s", address=str(address))


async def _reach(target: CacheTarget) -> list[CheckResult]:
    nodes = target.inspection.address.nodes
    places = [(node.socket_path or node.host, node.port) for node in nodes]
    seconds = min(target.settings.redis_connect_timeout / 1000, target.time_limit / 2)
    return some_suffice(await reach(places, _setting(target.settings), seconds))


def _setting(settings: RedisSettings) -> str:
    """The setting that says where the servers are."""
    names = ("redis_url", "redis_cluster_nodes", "redis_sentinel_nodes")
    named = next((name.upper() for name in names if getattr(settings, name) is not None), None)
    return named or "REDIS_HOST and REDIS_PORT"


async def _judge_topology(target: CacheTarget) -> list[CheckResult]:
    """Whether sentinels, or the nodes of a cluster, agree and are enough."""
    address = target.inspection.address
    match address.topology:
        case Topology.SINGLE:
            return [ok("one server: while it is away the service works, and every read asks the database")]
        case Topology.SENTINEL:
            return await _judge_sentinels(target.inspection)
        case Topology.CLUSTER:
            return await _judge_cluster(target.inspection)


async def _judge_sentinels(inspection: CacheInspection) -> list[CheckResult]:
    sentinels = inspection.address.nodes
    answers = await asyncio.gather(*(_ask_sentinel(inspection, sentinel) for sentinel in sentinels))
    named = {answer for answer in answers if isinstance(answer, str)}
    found = [answer for answer in answers if isinstance(answer, CheckResult)]
    if not named:
        return found
    if len(named) > 1:
        found.append(
            failed(
                "the sentinels disagree about the primary: %(primaries)s",
                "wait for a failover to end; else reset them",
                primaries=listed([Text.verbatim(name) for name in sorted(named)]),
            )
        )
    if not found:
        return [
            ok(
                "all %(number)s sentinels name the primary %(primary)s, and can elect another one",
                number=len(sentinels),
                primary=named.pop(),
            )
        ]
    well = sum(isinstance(answer, str) for answer in answers)
    if well <= len(sentinels) // 2:
        few = failed(
            "only %(well)s of %(all)s sentinels are well, which is not a majority: there will be no failover",
            "start the others, or see why they do not find each other",
            well=well,
            all=len(sentinels),
        )
        return [few, *found]
    agreed = ok("%(well)s of %(all)s name %(primary)s", well=well, all=len(sentinels), primary=", ".join(sorted(named)))
    return some_suffice([*found, agreed])


async def _ask_sentinel(inspection: CacheInspection, sentinel: ServerAddress) -> str | CheckResult:
    try:
        return await inspection.ask_sentinel(sentinel)
    except CacheError as error:
        result = of_error(error)
        silent = failed(
            "the sentinel %(sentinel)s: %(error)s",
            "start the sentinels that are missing; without a majority they cannot fail over",
            sentinel=str(sentinel),
            error=result.meaning,
        )
        return replace(silent, advice=result.advice or silent.advice)


async def _judge_cluster(inspection: CacheInspection) -> list[CheckResult]:
    nodes = inspection.address.nodes
    answers = await asyncio.gather(*(inspection.cluster_state(node) for node in nodes), return_exceptions=True)
    silent, broken = [], []
    for node, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, CacheError):
            silent.append(
                failed(
                    "the node %(node)s: %(error)s",
                    "see that it runs and is in the cluster",
                    node=str(node),
                    error=of_error(answer).meaning,
                )
            )
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.get("cluster_state") != "ok" or answer.get("cluster_slots_ok") != _SLOTS:
            broken.append(
                failed(
                    "the node %(node)s calls the cluster broken: %(served)s of %(all)s slots work",
                    "redis-cli --cluster check shows which primary is missing; bring it or its replica back",
                    node=str(node),
                    served=answer.get("cluster_slots_ok", 0),
                    all=_SLOTS,
                )
            )
    if not silent and not broken:
        return [ok("the cluster is well, and all %(number)s slots are served", number=_SLOTS)]
    if len(silent) < len(nodes) and not broken:
        return [replace(one, outcome=Outcome.WARNING) for one in silent]
    return [*silent, *broken]


async def _log_in(target: CacheTarget) -> CheckResult:
    servers = await target.inspection.log_in()
    user = target.inspection.address.login.username or "default"
    return ok("%(user)s is logged in to %(servers)s", user=user, servers=", ".join(servers))


async def _judge_encryption(target: CacheTarget) -> CheckResult:
    address = target.inspection.address
    if address.login.tls:
        return ok("encrypted, and the server's certificate and name are verified")
    if all(node.socket_path or node.host in {"localhost", "127.0.0.1", "::1"} for node in address.nodes):
        return ok("not encrypted, and it stays on this machine")
    return warning(
        "the connection is not encrypted: the password and cached data can be read on their way",
        "set REDIS_TLS=true, or rediss:// in REDIS_URL, if the server can do it",
    )


# CLIENT TRACKING and HELLO 3 came with 6.0; the tests run with Redis 7.0 and Valkey 9.1.
_NEEDED = (6, 0)
_TESTED = (7, 0)
_SLOW_SECONDS = 0.02
_FEW = 0.9
_GOOD_POLICIES = frozenset({"allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu"})


async def judge_versions(inspection: CacheInspection) -> list[CheckResult]:
    """Whether each is new enough, and of the kind that the settings say."""
    return _all((_judge_version(name, info, inspection) for name, info in (await inspection.info()).items()))


def _judge_version(name: str, info: Info, inspection: CacheInspection) -> CheckResult:
    is_valkey = info.get("server_name") == "valkey"
    text = str(info.get("valkey_version") if is_valkey else info.get("redis_version", "?"))
    mode = info.get("redis_mode", info.get("server_mode", "standalone"))
    if (mode == "cluster") != (inspection.address.topology == "cluster"):
        return failed(
            "%(name)s is a node of a cluster, and the settings say otherwise"
            if mode == "cluster"
            else "%(name)s is not a node of a cluster, and the settings say otherwise",
            "name the nodes in REDIS_CLUSTER_NODES instead of REDIS_HOST or REDIS_URL, or the other way round",
            name=name,
        )
    number = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    version = f"{'Valkey' if is_valkey else 'Redis'} {text}"
    if number < _NEEDED:
        return failed(
            "%(name)s is %(version)s, which cannot report what changes",
            "upgrade to Redis 7 or Valkey",
            name=name,
            version=version,
        )
    if number < _TESTED:
        return warning(
            "%(name)s is %(version)s, which is older than what is tested",
            "upgrade to Redis 7 or Valkey",
            name=name,
            version=version,
        )
    return ok("%(name)s is %(version)s", name=name, version=version)


async def judge_writes(inspection: CacheInspection) -> CheckResult:
    """Whether every server takes writes at this moment."""
    try:
        await inspection.require_writes()
    except CacheError as error:
        result = of_error(error)
        advice = Text("READONLY: name the primary; OOM: give it memory; MISCONF: its disk; NOREPLICAS: its replicas")
        return replace(result, advice=result.advice or advice)
    return ok("every server takes writes")


async def judge_rights(inspection: CacheInspection) -> list[CheckResult]:
    """Whether the user may use the commands that the cache needs."""
    user = inspection.address.login.username or "default"
    results = [
        failed(
            "%(name)s: %(user)s may not use %(commands)s on keys %(keys)s",
            "ACL SETUSER %(user)s ~%(keys)s %(rights)s",
            name=name,
            user=user,
            commands=", ".join(forbidden),
            keys=inspection.key_pattern,
            rights=" ".join(f"+{command.lower()}" for command in forbidden),
        )
        if forbidden
        else ok("%(name)s: %(user)s may use every command that the cache needs", name=name, user=user)
        for name, forbidden in (await inspection.forbidden_commands()).items()
    ]
    return _all(results)


async def judge_memory(inspection: CacheInspection) -> list[CheckResult]:
    """Whether the server makes room by removing what was used least, as a cache should."""
    return _all((_judge_memory(name, info) for name, info in (await inspection.info()).items()))


def _judge_memory(name: str, info: Info) -> CheckResult:
    used, limit, policy = _number(info, "used_memory"), _number(info, "maxmemory"), str(info.get("maxmemory_policy"))
    if not limit:
        return warning(
            "%(name)s has no maxmemory: it grows until its machine has no memory left, and is killed",
            "set maxmemory, and maxmemory-policy allkeys-lru",
            name=name,
        )
    if policy == "noeviction":
        return warning(
            "%(name)s removes nothing when it is full (noeviction): then nothing new is cached and every read asks the "
            "database; %(used)s of %(limit)s are used",
            "set maxmemory-policy allkeys-lru",
            name=name,
            used=readable_size(used),
            limit=readable_size(limit),
        )
    if policy not in _GOOD_POLICIES:
        return warning(
            "%(name)s removes by %(policy)s, which also takes fresh marks that keep old values from coming back",
            "set maxmemory-policy allkeys-lru (where others share the server: volatile-lru)",
            name=name,
            policy=policy,
        )
    return ok(
        "%(name)s: %(used)s of %(limit)s are used, and %(policy)s makes room",
        name=name,
        used=readable_size(used),
        limit=readable_size(limit),
        policy=policy,
    )


async def judge_persistence(inspection: CacheInspection) -> list[CheckResult]:
    """Whether writing to disk, which the cache does not need, stands in its way."""
    return _all((_judge_persistence(name, info) for name, info in (await inspection.info()).items()))


def _judge_persistence(name: str, info: Info) -> CheckResult:
    broken = [
        what
        for what, field in (
            (Text("the last snapshot"), "rdb_last_bgsave_status"),
            (Text("the last write"), "aof_last_write_status"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if broken:
        return failed(
            "%(name)s could not store %(what)s: it refuses writes, or will",
            "see whether its disk is full; the cache needs no persistence: save '' and appendonly no switch it off",
            name=name,
            what=listed(broken),
        )
    if info.get("loading"):
        return warning(
            "%(name)s is still reading its data from disk", "wait; the cache is not used meanwhile", name=name
        )
    return ok(
        "%(name)s keeps an append-only file; the cache needs none, everything is in the database"
        if info.get("aof_enabled")
        else "%(name)s keeps snapshots at most; the cache needs none, everything is in the database",
        name=name,
    )


async def judge_connections(inspection: CacheInspection) -> list[CheckResult]:
    """Whether there is room for clients."""
    return _all((_judge_clients(name, info) for name, info in (await inspection.info()).items()))


def _judge_clients(name: str, info: Info) -> CheckResult:
    clients, limit = _number(info, "connected_clients"), _number(info, "maxclients")
    rejected = _number(info, "rejected_connections")
    if limit and clients > _FEW * limit:
        return warning(
            "%(name)s: %(clients)s of %(limit)s clients are connected",
            "find out who they are with CLIENT LIST, or raise maxclients",
            name=name,
            clients=clients,
            limit=limit,
        )
    return ok(
        "%(name)s: %(clients)s of %(limit)s clients are connected; turned away since its start: %(rejected)s"
        if rejected
        else "%(name)s: %(clients)s of %(limit)s clients are connected",
        name=name,
        clients=clients,
        limit=limit,
        rejected=rejected,
    )


async def judge_tracking(inspection: CacheInspection) -> list[CheckResult]:
    """Whether it reports what others change, without which the process keeps no copy."""
    results = [
        ok("%(name)s reports what changes", name=name)
        if reason is None
        else warning(
            "%(name)s does not report what changes, so every read asks Redis: %(reason)s",
            "allow CLIENT TRACKING (+client|tracking), or set REDIS_NEAR_SIZE=0 if the provider does not offer it",
            name=name,
            reason=Text.verbatim(reason),
        )
        for name, reason in (await inspection.forbids_tracking()).items()
    ]
    return _all(results)


async def judge_latencies(inspection: CacheInspection) -> list[CheckResult]:
    """Whether an answer comes sooner than the database would give it."""
    results = [
        warning(
            "%(name)s takes %(milliseconds)s ms for a PING",
            "move it nearer, or see what keeps it busy (SLOWLOG)",
            name=name,
            milliseconds=round(seconds * 1000),
        )
        if seconds > _SLOW_SECONDS
        else ok("%(name)s answers after %(milliseconds)s ms", name=name, milliseconds=round(seconds * 1000, 1))
        for name, seconds in (await inspection.latencies()).items()
    ]
    return _all(results)


async def judge_clocks(inspection: CacheInspection) -> list[CheckResult]:
    """Whether their clocks agree with ours."""
    differences = await inspection.clock_differences()
    return _all((judge_difference(*figures, name) for name, figures in differences.items()))


def _all(results: Iterable[CheckResult]) -> list[CheckResult]:
    """One line where all is well, however many servers there are; or else one for each that is not."""
    found = list(results)
    bad = [result for result in found if result.outcome is not Outcome.OK]
    return bad or [CheckResult(Outcome.OK, joined([result.meaning for result in found]))]


def _number(info: Info, field: str) -> int:
    value = info.get(field, 0)
    return value if isinstance(value, int) else 0
