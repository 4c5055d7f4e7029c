"""The way to the servers: lines, primaries with their breakers, and where the keys are.

What ``commands.CommandRunner`` offers to everything above (C1 is building it; the signatures are settled):

    CommandRunner(address: CacheAddress, settings: Settings, counters: Counters)      # opens nothing by itself
    async run(*command, repeatable=True) -> Any          # routed by the key: the first argument, or EVAL's first key
    async run_on(primary, *command) -> Any               # PING, INFO, SCAN … of one server; INFO is bytes, see parse_info
    async run_batch(commands, repeatable=True) -> list[Any | CacheError]   # together; one failed command is one CacheError
    async run_all(commands, atomic=False, repeatable=True) -> list[Any]    # raises the first CacheError; atomic: one slot
    async get_many(keys) -> list[bytes | None]           # any number of keys, any slots, in the order of the keys
    async unlink(keys) -> int
    async eval(script: Script, key, *arguments, repeatable=False) -> Any   # Script(text) knows its SHA-1
    scan(pattern) -> AsyncIterator[list[bytes]]          # of all primaries
    async primaries() -> tuple[Primary, ...]             # discovers them where that is needed
    async open_line(primary, *, on_push, on_closed) -> Line                # a connection of its own, for tracking
    on_topology_change(callback: Callable[[PrimaryAccess], Awaitable[None]]) -> None
    client -> Redis | RedisCluster                       # redis-py, made when it is first asked for
    breaker_state -> BreakerState                        # the worst of all primaries: "closed", "half_open", "open"
    async close()

``Primary``: ``name`` (host:port or the socket's path), ``breaker_state``, ``connections`` (number of open lines).
``Line``: ``async run(*command) -> Any`` (typed errors), ``close()``, ``is_closed``; ``on_push(message: list)`` is called
in the event loop with e.g. ``[b"invalidate", [b"key", …]]`` or ``[b"invalidate", None]``; ``on_closed()`` once.
``PrimaryAccess``: ``name``, ``owns(key) -> bool``, ``async run(*command)``, ``async run_batch(commands)``: may send to
this primary while all others wait. The callback is awaited after each connection to a primary was made (the first
one too) and whenever a primary got slots from another, before any other command is sent to it. If it raises, the
primary counts as unavailable and everything is tried again.
"""
