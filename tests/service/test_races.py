"""A revocation that meets an admission half way, at every await of it, and the caches that lie between."""

from __future__ import annotations

import pytest

from authsvc.core import tokens
from authsvc.core.facts import TokenKind
from authsvc.core.reasons import Reason
from authsvc.service import Admitted
from tests.service.conftest import T, Wire, World


async def _revoke_and_settle(world: World, token_id: str) -> None:
    written = await world.store.app_tokens.delete(T, token_id)
    await world.service.feed.settle(written.position)


READS = ["token_by_digest", "tenant", "thing_or_retired", "definition", "ground", "register"]


@pytest.mark.parametrize("applied", ["applied", "not applied yet"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", READS)
async def test_a_revocation_at_any_await_of_an_admission_leaves_no_session(
    world: World, monkeypatch, step: str, when: str, applied: str
):
    """Wherever the revocation falls, the CONNECT is refused, or `open` says again, or the session is ended."""
    token, text = await world.app_token()
    await world.admitted(text, "other", client_id="warm")
    facts = world.service.facts
    for cache in (facts._definitions, facts._grounds, facts._tenants, facts._pairs):
        cache.drop_where(lambda *_: True)
    original = getattr(world.store, step)
    revoked: list[int] = []

    async def interleaved(*args, **kwargs):
        async def revoke() -> None:
            if not revoked:
                written = await world.store.app_tokens.delete(T, token.id)
                revoked.append(written.position)
                if applied == "applied":
                    await world.service.feed.settle(written.position)

        if when == "before":
            await revoke()
        answer = await original(*args, **kwargs)
        await revoke()
        return answer

    monkeypatch.setattr(world.store, step, interleaved)
    outcome = await world.admit(text, "gw-1")
    assert revoked
    wire = Wire()
    if isinstance(outcome, Admitted):
        world.service.sessions.open(outcome, wire, broker="gate", peer="p")
    await world.settle()
    assert len(world.service.sessions) == 0
    monkeypatch.undo()
    assert await world.refused(text, "gw-1") in (Reason.TOKEN_REVOKED, Reason.UNKNOWN_TOKEN)


async def test_open_refuses_an_admission_whose_footing_changed(world: World):
    """Between admission and open a move is applied: the admission starts again, and gets the new grant."""
    await world.store.grounds.create(T, "north")
    _, text = await world.app_token()
    await world.connect(text, "gw-1")
    admitted = await world.admitted(text, "gw-1")
    await world.settle((await world.store.things.update(T, "gw-1", ground="north")).position)
    assert world.service.sessions.open(admitted, Wire(), broker="gate", peer="p") is None
    session, _ = await world.connect(text, "gw-1")
    assert session.ground == "north"


async def test_its_own_registration_does_not_restart_an_admission(world: World):
    """A first connection opens at once; seats that others take meanwhile do not matter to it."""
    await world.store.licenses.create(T, "fleet", seats=10)
    _, text = await world.app_token(license="fleet")
    admitted = await world.admitted(text, "gw-1")
    await world.admitted(text, "gw-2", client_id="c2")
    await world.settle()
    assert admitted.own_changes
    assert world.service.sessions.open(admitted, Wire(), broker="gate", peer="p") is not None


async def test_a_token_revoked_while_its_read_runs_is_not_cached(world: World, monkeypatch):
    """An entry is kept only if no change that names it was applied since its read began."""
    token, text = await world.app_token()
    await world.connect(text, "gw-1")  # known: nothing but the cache stands between the token and its session
    await world.settle()
    world.service.facts._drop_pairs(token.id)
    original = world.store.token_by_digest

    async def slow(digest: bytes):
        answer = await original(digest)  # the old truth
        await _revoke_and_settle(world, token.id)
        return answer

    monkeypatch.setattr(world.store, "token_by_digest", slow)
    late = await world.admit(text, "gw-1")
    assert not isinstance(late, Admitted) or world.service.sessions.open(late, Wire(), broker="g", peer="p") is None
    monkeypatch.undo()
    assert await world.refused(text, "gw-1") in (Reason.TOKEN_REVOKED, Reason.UNKNOWN_TOKEN)


async def test_unknown_tokens_are_never_cached(world: World):
    """A token that is created after it was tried works at once, and guesses take no memory."""
    text = tokens.mint(TokenKind.APP)
    for _ in range(3):
        assert await world.refused(text, "gw-1") is Reason.UNKNOWN_TOKEN
    assert len(world.service.facts._pairs) == 0
    written = await world.store.app_tokens.create(
        T, name="t", digest=tokens.digest(text), prefix=tokens.prefix(text), definition="thing"
    )
    await world.settle(written.position)
    await world.connect(text, "gw-1")
