"""Scenarios and plans: what a file may say, and that a seed decides everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.ledger import identity
from simulator.scenarios import ScenarioInvalid, find, load
from simulator.shape import plan

QUICKSTART = load(find("quickstart"))


def test_same_seed_gives_same_ids_payloads_and_times() -> None:
    """Two plans of one seed are equal in every field."""
    assert plan(QUICKSTART, 7) == plan(QUICKSTART, 7)


def test_another_seed_gives_other_payloads_and_times_for_the_same_things() -> None:
    """The seed moves times and values, not who there is: the service has bound the client ids."""
    one, other = plan(QUICKSTART, 7), plan(QUICKSTART, 8)
    assert one.gateways == other.gateways
    assert [message.at_s for message in one.reports] != [message.at_s for message in other.reports]
    assert {message.payload for message in one.reports} != {message.payload for message in other.reports}


def test_quickstart_is_what_it_says() -> None:
    """Twenty gateways with three modules, three attackers, a report of each a second."""
    planned = plan(QUICKSTART, QUICKSTART.seed)
    assert len(planned.gateways) == 20
    assert {len(gateway.modules) for gateway in planned.gateways} == {3}
    assert len(planned.things) == 20 + 60 + 1
    assert len(planned.reports) == 80 * 6
    assert len(planned.commands) == 81
    assert [attacker.kind for attacker in QUICKSTART.attackers] == ["wrong_token", "wildcard_grab", "forbidden_will"]


def test_ids_are_unique_and_in_the_payload() -> None:
    """What a witness receives can be told from everything else."""
    planned = plan(QUICKSTART, 1)
    messages = (*planned.reports, *planned.commands, *planned.device_reports)
    assert len({message.id for message in messages}) == len(messages)
    assert all(identity(message.payload) == message.id for message in messages)


def test_messages_are_due_within_the_run() -> None:
    """Nothing is planned before the load begins or after it ends."""
    planned = plan(QUICKSTART, 1)
    for message in (*planned.reports, *planned.commands, *planned.device_reports):
        assert 0 <= message.at_s <= QUICKSTART.duration_s
    assert max(planned.attacks_at_s) < min(command.at_s for command in planned.commands)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[fleet]\ngateways = 0\n", "fleet.gateways", id="no gateway"),
        pytest.param("[fleet]\ngateways = 1\ngatways = 2\n", "fleet.gatways", id="misspelt key"),
        pytest.param("[fleet]\ngateways = 1\n[[attackers]]\nkind = 'nuke'\n", "attackers.0", id="unknown attacker"),
        pytest.param("name = 'a/b'\n[fleet]\ngateways = 1\n", "name", id="name that is no key"),
        pytest.param("fleet = [", "not TOML", id="not TOML"),
    ],
)
def test_a_mistake_in_a_scenario_is_named(tmp_path: Path, text: str, said: str) -> None:
    """An unknown key is an error, not an ignored wish."""
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ScenarioInvalid, match=said):
        load(path)


def test_an_unknown_name_lists_what_there_is() -> None:
    """A misspelt scenario is answered by those there are."""
    with pytest.raises(ScenarioInvalid, match="quickstart"):
        find("quikstart")
