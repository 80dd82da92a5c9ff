"""Random clients and operators against a model of who may do what: after each move the two agree."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.broker.upstreams import mosquitto_socket
from tests.e2e.model_game import Game
from tests.e2e.process import Process, running

SEED = int(os.environ.get("AUTHSVC_TEST_SEED", "20261121"))


async def _play(process: Process, seed: int, seconds: float) -> None:
    game = Game(process, seed)
    await game.set_up()
    try:
        await game.play(seconds=seconds)
        log = process.log.read_text()
        assert "Traceback" not in log and '"level": "error"' not in log and "[error" not in log, log[-3000:]
    except BaseException:
        print(f"AUTHSVC_TEST_SEED={seed}, the last of {len(game.story)} moves:", *game.story[-40:], sep="\n")
        raise
    finally:
        await game.over()


async def _on(broker: str, folder: Path, seed: int, seconds: float) -> None:
    if broker == "amqtt":
        async with running(folder) as process:
            await _play(process, seed, seconds)
            assert await process.terminate() < 5
    else:
        async with mosquitto_socket(folder) as path, running(folder, upstream=path) as process:
            await _play(process, seed, seconds)
            assert await process.terminate() < 5


@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
async def test_a_random_game_ends_as_the_model_says(broker: str, tmp_path: Path) -> None:
    """Nobody gets what is not for him, everybody what is; who should be admitted is, and nobody else."""
    await _on(broker, tmp_path, SEED, 4)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("broker", ["amqtt", "mosquitto"])
async def test_long_games_end_as_the_model_says(broker: str, tmp_path: Path) -> None:
    """The same with new dice each time."""
    await _on(broker, tmp_path, random.randrange(2**31), float(os.environ.get("AUTHSVC_TEST_SECONDS", "60")) / 2)
