from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot as redis_py_slot

from data_layer.cache.commands import keys_of
from data_layer.cache.wire.routing import key_slot


@given(st.binary(max_size=40) | st.text("{}ab", max_size=12).map(str.encode))
@example(b"{user}:1")
@example(b"a{}b")
@example(b"a{{b}}")
def test_slots_are_those_of_redis(key: bytes) -> None:
    assert key_slot(key) == redis_py_slot(key)


def test_the_keys_of_commands() -> None:
    assert keys_of(("GET", "key")) == [b"key"]
    assert keys_of(("SET", b"key", b"other", "PX", 5)) == [b"key"]
    assert keys_of(("UNLINK", b"a", b"b")) == [b"a", b"b"]
    assert keys_of(("EVALSHA", "hash", 1, b"key", b"argument")) == [b"key"]
    assert keys_of(("EVALSHA", "hash", 0)) == []
    assert keys_of(("PING",)) == []
    assert keys_of(("SCAN", 0, "MATCH", b"*")) == []
