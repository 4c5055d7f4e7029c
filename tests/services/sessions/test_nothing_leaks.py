"""After a long story no token is to be found anywhere but with the client it was given to."""

from __future__ import annotations

import pytest

from data_layer import DataLayer, Settings
from data_layer.errors import AuthenticationError
from data_layer.schemas.actors import SYSTEM
from tests.leaks import LogLines, places_of
from tests.services.sessions.test_sessions import new_user, token_of


async def test_after_a_long_story(data: DataLayer, settings: Settings) -> None:
    talkative = settings.replaced(db_logging=True, log_level="debug")
    with LogLines() as log:
        async with DataLayer(talkative) as talking:
            secrets, texts = await do_everything(talking)
        assert await places_of(data, secrets, [*log.lines, *texts]) == []
    assert any("refresh_tokens" in line for line in log.lines), "the log is talkative"
    keys = [key async for key in data.cache.keys("session-copy:*")]
    assert keys, "there were copies in Redis"


async def do_everything(data: DataLayer) -> tuple[list[str], list[str]]:
    user = await new_user(data)
    sessions = [await data.sessions.create(user) for _ in range(3)]
    texts = [repr(sessions), str(sessions[0]), sessions[0].model_dump_json()]
    for new in sessions:
        for _ in range(3):
            await data.sessions.validate(token_of(new))
    secrets = [token_of(new) for new in sessions]
    pairs = [await data.tokens.issue(sessions[0].session)]
    for _ in range(3):
        pairs.append(await data.tokens.refresh(pairs[-1].refresh_token.get_secret_value()))
        await data.tokens.verify(pairs[-1].access_token.get_secret_value())
    texts += [repr(pairs), pairs[0].model_dump_json(), repr(vars(data.sessions)), repr(vars(data.tokens))]
    secrets += [pair.refresh_token.get_secret_value() for pair in pairs]
    secrets += [pair.access_token.get_secret_value() for pair in pairs]
    await data.sessions.write_data(sessions[1].session.id, {"a": 1}, version=0)
    texts += [repr(await data.sessions.list_all(SYSTEM)), repr(await data.sessions.read_data(sessions[1].session.id))]
    for asking in (
        data.tokens.refresh(pairs[0].refresh_token.get_secret_value()),
        data.sessions.validate(secrets[0]),
        data.sessions.validate(secrets[0][:-1] + "x"),
    ):
        with pytest.raises(AuthenticationError) as caught:
            await asking
        texts.append(repr(caught.value))
    await data.sessions.revoke_all(SYSTEM, user, keep=sessions[1].session.id)
    await data.sessions.validate(secrets[1])
    return secrets, texts
