"""Whether Redis or Valkey can be reached, and is set up as a cache with leases needs it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from data_layer.cache.address import Topology
from data_layer.cache.inspection import CacheInspection
from data_layer.errors import CacheError, NotInitializedError
from data_layer.schemas.doctor import Outcome
from data_layer.services.doctor import cache_servers
from data_layer.services.doctor.checks import Check, Verdict, failed, of_error, ok, unknown_place, warning
from data_layer.services.doctor.network import reach, some_suffice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from data_layer.cache.address import ServerAddress
    from data_layer.config import Settings

    Locate = Callable[[], Awaitable[str | Verdict | None]]

PART = "cache"
_START_SECONDS = 60.0
_SLOTS = 16_384


class CachePatient:
    """The servers that are looked at."""

    def __init__(self, settings: Settings, time_limit: float) -> None:
        self.settings = settings
        self.time_limit = time_limit
        self._inspection: CacheInspection | None = None

    def use(self, url: str | None) -> None:
        """Look at this server, or for None at those of the settings."""
        patience = min(self.settings.redis_connect_timeout, int(self.time_limit * 500))
        self._inspection = CacheInspection(self.settings.model_copy(update={"redis_connect_timeout": patience}), url)

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


def cache_checks(patient: CachePatient, locate: Locate | None) -> list[Check]:
    """The checks of the cache, those first that others need.

    Args:
        patient: what is found out is kept there.
        locate: says where the embedded server is, after starting it, or that there is none yet; None means the servers
            of the settings. No function: the settings do not say where it is.
    """
    login = ("login",)

    def check(name: str, look: Callable[[CachePatient], Awaitable[Verdict | list[Verdict]]], *needs: str) -> Check:
        return Check(PART, name, partial(look, patient), needs)

    def servers(name: str, look: Callable[[CacheInspection], Awaitable[Verdict | list[Verdict]]]) -> Check:
        async def look_at_servers() -> Verdict | list[Verdict]:
            return await look(patient.inspection)

        return Check(PART, name, look_at_servers, login)

    limit = max(_START_SECONDS, patient.time_limit) if patient.settings.uses_embedded_cache else None
    return [
        Check(PART, "server", partial(_locate, patient, locate), time_limit=limit),
        check("address", _reach, "server"),
        check("topology", _judge_topology, "address"),
        check("login", _log_in, "address"),
        check("tls", _judge_encryption, "login"),
        servers("version", cache_servers.judge_versions),
        servers("writes", cache_servers.judge_writes),
        servers("rights", cache_servers.judge_rights),
        servers("memory", cache_servers.judge_memory),
        servers("persistence", cache_servers.judge_persistence),
        servers("connections", cache_servers.judge_connections),
        servers("tracking", cache_servers.judge_tracking),
        servers("latency", cache_servers.judge_latencies),
        servers("clock", cache_servers.judge_clocks),
    ]


async def _locate(patient: CachePatient, locate: Locate | None) -> Verdict:
    if locate is None:
        return unknown_place("Redis")
    found = await locate()
    if isinstance(found, Verdict):
        return found
    patient.use(found)
    address = patient.inspection.address
    if patient.settings.uses_embedded_cache:
        return ok(f"embedded Valkey at {address}")
    names = {Topology.SINGLE: "one server", Topology.SENTINEL: "sentinels of", Topology.CLUSTER: "a cluster"}
    return ok(f"the settings name {names[address.topology]} {address}")


async def _reach(patient: CachePatient) -> list[Verdict]:
    nodes = patient.inspection.address.nodes
    places = [(node.socket_path or node.host, node.port) for node in nodes]
    seconds = min(patient.settings.redis_connect_timeout / 1000, patient.time_limit / 2)
    return some_suffice(await reach(places, _setting(patient.settings), seconds))


def _setting(settings: Settings) -> str:
    """The setting that says where the servers are."""
    names = ("redis_url", "redis_cluster_nodes", "redis_sentinel_nodes")
    named = next((name.upper() for name in names if getattr(settings, name) is not None), None)
    return named or "REDIS_HOST and REDIS_PORT"


async def _judge_topology(patient: CachePatient) -> list[Verdict]:
    """Whether sentinels, or the nodes of a cluster, agree and are enough."""
    address = patient.inspection.address
    match address.topology:
        case Topology.SINGLE:
            return [ok("one server: while it is away the service works, and every read asks the database")]
        case Topology.SENTINEL:
            return await _judge_sentinels(patient.inspection)
        case Topology.CLUSTER:
            return await _judge_cluster(patient.inspection)


async def _judge_sentinels(inspection: CacheInspection) -> list[Verdict]:
    sentinels = inspection.address.nodes
    answers = await asyncio.gather(*(_ask_sentinel(inspection, sentinel) for sentinel in sentinels))
    named = {answer for answer in answers if isinstance(answer, str)}
    found = [answer for answer in answers if isinstance(answer, Verdict)]
    if not named:
        return found
    if len(named) > 1:
        places = " and ".join(sorted(named))
        found.append(
            failed(f"the sentinels disagree about the primary: {places}", "wait for a failover to end; else reset them")
        )
    if not found:
        return [ok(f"all {len(sentinels)} sentinels name the primary {named.pop()}, and can elect another one")]
    well = sum(isinstance(answer, str) for answer in answers)
    if well <= len(sentinels) // 2:
        shown = f"only {well} of {len(sentinels)} sentinels are well, which is no majority: there will be no failover"
        return [failed(shown, "start the others, or see why they do not find each other"), *found]
    return some_suffice([*found, ok(f"{well} of {len(sentinels)} name {', '.join(sorted(named))}")])


async def _ask_sentinel(inspection: CacheInspection, sentinel: ServerAddress) -> str | Verdict:
    try:
        return await inspection.ask_sentinel(sentinel)
    except CacheError as error:
        verdict = of_error(error)
        advice = verdict.advice or "start the sentinels that are missing; without a majority there is no failover"
        return failed(f"the sentinel {sentinel}: {verdict.meaning}", advice)


async def _judge_cluster(inspection: CacheInspection) -> list[Verdict]:
    nodes = inspection.address.nodes
    answers = await asyncio.gather(*(inspection.cluster_state(node) for node in nodes), return_exceptions=True)
    found = []
    for node, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, CacheError):
            found.append(
                failed(f"the node {node}: {of_error(answer).meaning}", "see that it runs and is in the cluster")
            )
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.get("cluster_state") != "ok" or answer.get("cluster_slots_ok") != _SLOTS:
            served = answer.get("cluster_slots_ok", 0)
            advice = "redis-cli --cluster check tells which primary is missing; bring it or its replica back"
            found.append(failed(f"the node {node} calls the cluster broken: {served} of {_SLOTS} slots work", advice))
    if not found:
        return [ok(f"the cluster is well, and all {_SLOTS} slots are served")]
    if len(found) < len(nodes) and all("calls the cluster broken" not in one.meaning for one in found):
        return [Verdict(Outcome.WARNING, one.meaning, one.advice) for one in found]
    return found


async def _log_in(patient: CachePatient) -> Verdict:
    servers = await patient.inspection.log_in()
    user = patient.inspection.address.login.username or "default"
    return ok(f"{user} is logged in to {', '.join(servers)}")


async def _judge_encryption(patient: CachePatient) -> Verdict:
    address = patient.inspection.address
    if address.login.tls:
        return ok("encrypted, and the server's certificate and name are verified")
    if all(node.socket_path or node.host in {"localhost", "127.0.0.1", "::1"} for node in address.nodes):
        return ok("not encrypted, and it stays on this machine")
    return warning(
        "the connection is not encrypted: the password and cached data can be read on their way",
        "set REDIS_TLS=true, or rediss:// in REDIS_URL, if the server can do it",
    )
