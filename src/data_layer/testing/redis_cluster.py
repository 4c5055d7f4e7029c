"""Three primaries that share the keys, each with a replica."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from data_layer.testing.free_ports import free_port
from data_layer.testing.redis_server import RedisGroup, RedisServer, TlsFiles, wait_until

SLOTS = 16384
_PRIMARIES = 3
_WAITING_SECONDS = 60


class Node(RedisServer):
    """One node, which also listens on a port for the others."""

    bus_port = 0

    @property
    def id(self) -> str:
        """The name that the node has given itself."""
        return str(self.execute("CLUSTER", "MYID"))

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.bus_port = free_port()

    def _lines(self) -> list[str]:
        return [*super()._lines(), f"cluster-port {self.bus_port}"]


class RedisCluster(RedisGroup):
    """Six nodes, for a ``with`` block: three primaries with a third of the slots each, and a replica of each.

    Args:
        binary: see ``RedisGroup``, as for all that follow but this one.
        node_timeout: milliseconds of silence after which a node counts as gone.
    """

    def __init__(
        self,
        binary: str | Path | None = None,
        *,
        tls: TlsFiles | None = None,
        username: str | None = None,
        password: str = "",
        options: Iterable[str] = (),
        node_timeout: int = 1500,
    ) -> None:
        self._node_timeout = node_timeout
        super().__init__(binary, tls=tls, username=username, password=password, options=options)
        self.members: tuple[Node, ...] = ()

    @property
    def nodes(self) -> str:
        """All nodes, as REDIS_CLUSTER_NODES takes them."""
        return ",".join(node.address for node in self.members)

    @property
    def settings(self) -> dict[str, Any]:
        """What ``Settings`` need to reach the cluster."""
        return super().settings | {"redis_cluster_nodes": self.nodes}

    @property
    def primaries(self) -> tuple[Node, ...]:
        """The nodes that own slots now, in the order of their slots, as a running one sees it."""
        return tuple(self._node(shard[2][1]) for shard in self._shards())

    def primary_of(self, key: str | bytes) -> Node:
        """The node that owns the key's slot now."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        return next(self._node(shard[2][1]) for shard in self._shards() if shard[0] <= slot <= shard[1])

    def partner_of(self, node: Node) -> Node:
        """The other node of the pair: the replica of a primary, or the primary of a replica."""
        position = self.members.index(node)
        return self.members[(position + _PRIMARIES) % len(self.members)]

    def fail_over(self, primary: Node) -> Node:
        """Let the replica of a primary take its place, in agreement, and wait until all nodes know."""
        self.partner_of(primary).execute("CLUSTER", "FAILOVER")
        return self.wait_for_new_primary(primary)

    def wait_for_new_primary(self, old: Node) -> Node:
        """Wait until the partner of a node has its slots, and every running node says that all is well."""
        new = self.partner_of(old)
        wait_until(
            lambda: self._is_well() and all(self._is_primary(new, node) for node in self._awake()),
            "the replica was the primary",
            seconds=_WAITING_SECONDS,
        )
        return new

    def wait_until_well(self) -> None:
        """Wait until every running node says ``cluster_state:ok``, and every running replica follows its primary."""
        wait_until(
            lambda: self._is_well() and self._replicas_follow(), "the cluster was well", seconds=_WAITING_SECONDS
        )

    def move_slot(self, slot: int, target: Node) -> None:
        """Move an empty slot, or one whose keys may be lost, from its owner to another primary."""
        source = next(self._node(shard[2][1]) for shard in self._shards() if shard[0] <= slot <= shard[1])
        while keys := source.execute("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute("UNLINK", *keys)
        for node in (target, source, *self._awake()):
            if node in self.primaries:
                node.execute("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def _start(self) -> None:
        self.members = self._enter(
            Node(self._binary, tls=self._tls, username=self._username, password=self._password, options=self._options)
            for _ in range(2 * _PRIMARIES)
        )
        primaries, replicas = self.members[:_PRIMARIES], self.members[_PRIMARIES:]
        for number, primary in enumerate(primaries):
            bounds = (SLOTS * number // _PRIMARIES, SLOTS * (number + 1) // _PRIMARIES - 1)
            primary.execute("CLUSTER", "ADDSLOTSRANGE", *bounds)
            # Different from the start, so that the nodes need not settle whose word counts.
            primary.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.members:
            for other in self.members:
                if other is not node:
                    node.execute("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        for primary, replica in zip(primaries, replicas, strict=True):
            self._follow(replica, primary.id)
        self.wait_until_well()

    @staticmethod
    def _follow(replica: Node, primary_id: str) -> None:
        def try_to_follow() -> bool:
            # Refused while the replica has not heard of the primary.
            return bool(replica.execute("CLUSTER", "REPLICATE", primary_id))

        wait_until(try_to_follow, "the replica knew its primary", seconds=_WAITING_SECONDS)

    def _own_options(self) -> list[str]:
        return [
            *super()._own_options(),
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            f"cluster-node-timeout {self._node_timeout}",
            # A replica is fit to take over however long it has not heard of its primary.
            "cluster-replica-validity-factor 0",
            "cluster-allow-replica-migration no",
        ]

    def _tls_options(self) -> list[str]:
        return [*super()._tls_options(), "tls-cluster yes"] if self._tls else []

    def _awake(self) -> list[Node]:
        return [node for node in self.members if node.is_awake]

    def _node(self, port: int) -> Node:
        return next(node for node in self.members if node.port == port)

    def _shards(self, node: Node | None = None) -> list[Any]:
        """Lists of the first slot, the last, the primary and its replicas; each node as host, port, id, more."""
        return sorted((node or self._awake()[0]).execute("CLUSTER", "SLOTS"))

    def _is_primary(self, primary: Node, node: Node) -> bool:
        """Whether a node owns slots, in the eyes of another one."""
        return any(shard[2][1] == primary.port for shard in self._shards(node))

    def _is_well(self) -> bool:
        return all(self._says_ok(node) for node in self._awake())

    @staticmethod
    def _says_ok(node: Node) -> bool:
        lines = str(node.execute("CLUSTER", "INFO")).split()
        return {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}", f"cluster_size:{_PRIMARIES}"} <= set(lines)

    def _replicas_follow(self) -> bool:
        states = [node.info("replication") for node in self._awake()]
        return all(state["role"] == "master" or state["master_link_status"] == "up" for state in states)
