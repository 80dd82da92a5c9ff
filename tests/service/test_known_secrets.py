"""Who guesses is refused without the store, and nobody who has a token ever is: the two sides of one index."""

from __future__ import annotations

import asyncio
import random
import secrets

import pytest

from authsvc import known_secrets
from authsvc.core import tokens
from authsvc.core.errors import StoreUnavailable
from authsvc.core.facts import Change, Kind, Name, TokenKind
from authsvc.core.reasons import Reason
from authsvc.known_secrets import KnownSecrets
from authsvc.service import Admitted
from tests.service.conftest import T, World


async def _complete(known: KnownSecrets) -> None:
    async with asyncio.timeout(5):
        while not known.complete:
            await asyncio.sleep(0.005)


def _guess() -> str:
    return tokens.mint(TokenKind.APP)


async def _digests(world: World) -> list[bytes]:
    return await world.store.secret_digests(after=b"", limit=100_000)


async def _create(world: World) -> bytes:
    """Create a token and return its digest when the change is applied, which is when a caller is answered."""
    return tokens.digest((await world.app_token())[1])


async def test_a_guess_is_refused_without_asking_the_store(world: World, monkeypatch):
    """Of three hundred a second the database hears nothing."""
    await _complete(world.service.known_secrets)

    async def no_read(digest: bytes) -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(world.store, "token_by_digest", no_read)
    for _ in range(100):
        assert await world.refused(_guess(), "gw-1") is Reason.UNKNOWN_TOKEN


async def test_a_token_opens_as_soon_as_its_creation_is_answered(world: World):
    """Created or regenerated; what ended is found too, and is refused for what it is."""
    await _complete(world.service.known_secrets)
    token, text = await world.app_token()
    await world.connect(text, "gw-1")
    again = _guess()
    written = await world.store.app_tokens.regenerate(
        T, token.id, digest=tokens.digest(again), prefix=tokens.prefix(again)
    )
    await world.settle(written.position)
    assert world.service.known_secrets.complete
    await world.connect(again, "gw-1")
    assert await world.refused(text, "gw-1") is Reason.TOKEN_REVOKED


async def test_many_tokens_open_at_once_while_others_are_created_and_guessed(world: World):
    """Whoever has an answer gets in, whatever happens beside it; whoever has none does not."""
    await _complete(world.service.known_secrets)

    async def owner(number: int) -> None:
        for turn in range(5):
            _, text = await world.app_token()
            outcome = await world.admit(text, f"gw-{number}-{turn}", client_id=f"c-{number}-{turn}")
            assert isinstance(outcome, Admitted), outcome

    async def guesser() -> None:
        for _ in range(50):
            assert await world.refused(_guess(), "gw-1") is Reason.UNKNOWN_TOKEN
            await asyncio.sleep(0)

    await asyncio.gather(*(owner(number) for number in range(20)), *(guesser() for _ in range(10)))
    assert world.service.known_secrets.complete


async def test_until_all_is_read_the_store_is_asked(world: World, monkeypatch):
    """Not to have read a secret says nothing about it."""
    _, text = await world.app_token()
    held = asyncio.Event()

    async def never(**_: object) -> list[bytes]:
        await held.wait()
        return []

    monkeypatch.setattr(world.store, "secret_digests", never)
    await world.stop()
    started_again = World(world.store, world.clock)
    await started_again.start()
    assert not started_again.service.known_secrets.surely_unknown(tokens.digest(_guess()))
    await started_again.connect(text, "gw-1")
    assert await started_again.refused(_guess(), "gw-1") is Reason.UNKNOWN_TOKEN
    await started_again.stop()


@pytest.mark.parametrize("applied", ["applied", "not applied yet"])
@pytest.mark.parametrize("page", range(3))
async def test_a_secret_created_while_the_store_is_read_is_not_missed(world: World, monkeypatch, page: int, applied):
    """Before and after the read of any page, wherever in their order it falls."""
    monkeypatch.setattr(known_secrets, "PAGE", 2)
    for _ in range(5):
        await _create(world)
    await world.stop()
    read = world.store.secret_digests
    created: list[bytes] = []
    pages = 0
    started_again = World(world.store, world.clock)

    async def create() -> None:
        text = _guess()
        written = await world.store.app_tokens.create(
            T, name="t", digest=tokens.digest(text), prefix=tokens.prefix(text)
        )
        if applied == "applied":
            await started_again.settle(written.position)
        created.append(tokens.digest(text))

    async def interleaved(**asked: object) -> list[bytes]:
        nonlocal pages
        here = pages == page
        pages += 1
        for _ in range(5 * here):
            await create()
        found = await read(**asked)
        for _ in range(5 * here):
            await create()
        return found

    monkeypatch.setattr(world.store, "secret_digests", interleaved)
    await started_again.start()
    await _complete(started_again.service.known_secrets)
    await started_again.settle()
    assert len(created) == 10
    assert not any(started_again.service.known_secrets.surely_unknown(digest) for digest in created)
    assert started_again.service.known_secrets.surely_unknown(tokens.digest(_guess()))
    await started_again.stop()


async def test_a_store_that_cannot_be_read_is_read_later(world: World, monkeypatch):
    """Until then it is asked about everybody."""
    monkeypatch.setattr(known_secrets, "RETRY_S", 0.01)
    digest = await _create(world)
    read, fail = world.store.secret_digests, True

    async def unavailable(**asked: object) -> list[bytes]:
        if fail:
            raise StoreUnavailable("away")
        return await read(**asked)

    monkeypatch.setattr(world.store, "secret_digests", unavailable)
    known = KnownSecrets(world.store)
    running = asyncio.create_task(known.run())
    await asyncio.sleep(0.05)
    assert not known.complete
    fail = False
    await _complete(known)
    assert not known.surely_unknown(digest)
    assert known.surely_unknown(tokens.digest(_guess()))
    running.cancel()


@pytest.mark.parametrize("detail", [{}, {"digest_begins": 5}, {"digest_begins": "12"}, {"digest_begins": "x" * 16}])
async def test_a_change_that_does_not_say_enough_has_the_store_read_again(world: World, detail: dict):
    """Whoever wrote it: what is not known for sure is asked."""
    known = world.service.known_secrets
    digest = await _create(world)
    await _complete(known)
    known.apply(Change(position=1, at_us=1, name=Name(Kind.SECRET, T, "s"), op="created", detail=detail))
    assert not known.surely_unknown(tokens.digest(_guess()))
    await _complete(known)
    assert not known.surely_unknown(digest)
    assert known.surely_unknown(tokens.digest(_guess()))


async def test_what_came_while_the_store_was_read_and_was_not_understood_has_it_read_again(world: World, monkeypatch):
    """It may be of a page that was read before."""
    known = KnownSecrets(world.store)
    read, pages = world.store.secret_digests, 0

    async def interleaved(**asked: object) -> list[bytes]:
        nonlocal pages
        pages += 1
        assert not known.complete
        found = await read(**asked)
        if pages == 1:
            known.apply(Change(position=1, at_us=1, name=Name(Kind.SECRET, T, "s"), op="created"))
        return found

    monkeypatch.setattr(world.store, "secret_digests", interleaved)
    running = asyncio.create_task(known.run())
    await _complete(known)
    assert pages == 2
    running.cancel()


async def test_memory_is_bounded_beyond_it_the_store_is_asked(world: World):
    """Too many to remember at a start: none is. Too many since: those that are no more make room."""
    small = KnownSecrets(world.store, most=4)
    world.service.feed.follow(small)
    running = asyncio.create_task(small.run())
    await world.store.tenants.create("other")
    await _complete(small)
    for tenant in (T, "other", "other", "other", "other"):
        text = _guess()
        await world.store.app_tokens.create(tenant, name="t", digest=tokens.digest(text), prefix=tokens.prefix(text))
    await world.settle()
    assert (small.complete, len(small)) == (True, 5)
    await world.store.tenants.delete("other", cascade=True)
    await _create(world)
    await _complete(small)
    assert len(small) == 2
    for _ in range(4):
        await _create(world)
    await asyncio.sleep(0.1)
    assert (small.complete, len(small)) == (False, 0)
    assert not small.surely_unknown(tokens.digest(_guess()))
    running.cancel()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_nobody_with_a_secret_is_surely_unknown(world: World, seed: int):
    """Against the store itself, after each of some hundred random deeds, and after a start in between."""
    deeds = random.Random(seed)
    here = world
    tenants = {T}
    living: list[tuple[str, str]] = []

    async def create() -> None:
        tenant = deeds.choice(sorted(tenants))
        written = await here.store.app_tokens.create(tenant, name="t", digest=secrets.token_bytes(32), prefix="p")
        living.append((tenant, written.value.id))

    async def regenerate() -> None:
        if living:
            overlap_us = deeds.choice([0, 60_000_000])
            await here.store.app_tokens.regenerate(
                *deeds.choice(living), digest=secrets.token_bytes(32), prefix="p", overlap_us=overlap_us
            )

    async def revoke() -> None:
        if living:
            await here.store.app_tokens.delete(*living.pop(deeds.randrange(len(living))))

    async def come_and_go() -> None:
        if "other" in tenants:
            tenants.remove("other")
            living[:] = [one for one in living if one[0] != "other"]
            await here.store.tenants.delete("other", cascade=True)
        else:
            await here.store.tenants.create("other")
            tenants.add("other")

    async def start_again() -> None:
        nonlocal here
        await here.stop()
        here = World(world.store, world.clock)
        await here.start()

    for _ in range(60):
        deed = deeds.choices([create, regenerate, revoke, come_and_go, start_again], weights=[8, 6, 3, 2, 1])[0]
        await asyncio.gather(*(deed() for _ in range(deeds.choice([1, 1, 4]) if deed is create else 1)))
        await here.settle()
        known = here.service.known_secrets
        assert not any(known.surely_unknown(digest) for digest in await _digests(here))
        if known.complete:
            assert known.surely_unknown(secrets.token_bytes(32))
    await here.stop()
