"""The pages of the brokers are alike: what cannot be kept comes first; what they set up is what the program prints."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from authsvc.adapters.routes import MODULES, adapter_of
from authsvc.cli.root import app
from tests.docs.pages import blocks, text_of

GATE = ("amqtt", "mosquitto", "rumqttd")
ASKING = ("emqx", "vernemq", "rabbitmq", "nanomq", "mosquitto-go-auth", "aedes")
SECTIONS = ["Setup", "What is asked, what is answered", "How a session ends", "When authsvc does not answer"]


def _headings(page: str) -> list[str]:
    return re.findall(r"^## (.+)$", page, re.MULTILINE)


def _opening(page: str) -> str:
    """Return what stands before the list of what cannot be kept, on one line."""
    return " ".join(page.partition("\n* ")[0].split())


@pytest.mark.parametrize("name", ASKING)
def test_a_broker_that_asks_is_described_as_the_others_are(name: str) -> None:
    """How it is attached and tested, what it cannot keep, then the same sections in the same order."""
    page = text_of(f"docs/brokers/{name}.md")
    assert re.search(r"# .+ Attached by (hooks|the npm package)\b.+ Tested (with|by) ", _opening(page))
    assert _opening(page).endswith("What it cannot keep of the [promises](../security.md), and why:")
    assert [heading for heading in _headings(page) if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("name", GATE)
def test_a_broker_behind_the_gate_says_first_what_is_its_own(name: str) -> None:
    """The promises hold there; what the broker itself cannot keep stands in one form."""
    opening = _opening(text_of(f"docs/brokers/{name}.md"))
    assert "Behind the gate" in opening
    assert "Every promise of [security](../security.md) holds" in opening
    assert opening.endswith("What it cannot keep beyond them, and why:")


@pytest.mark.parametrize("name", ASKING)
def test_the_settings_of_a_page_are_those_that_the_command_prints(name: str) -> None:
    """Who copies the section and runs the two commands has both sides of one secret."""
    page = text_of(f"docs/brokers/{name}.md")
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("authsvc config")]
    (printing,) = [line for line in lines if line.endswith(" --settings")]
    assert printing.removesuffix(" --settings") in lines, "the broker's side is printed with the same options"
    printed = CliRunner().invoke(app, shlex.split(printing)[1:])
    assert printed.output == blocks(page, "toml")[0]
    made = re.findall(r"/dev/stdin (\S+)$", page, re.MULTILINE)[0]
    assert f'secret_file = "{made}"' in printed.output


def test_every_kind_has_a_page_and_a_column_in_the_index() -> None:
    """No adapter without a page, no page that the index does not link."""
    index = text_of("docs/brokers/README.md")
    assert MODULES.keys() == {name.replace("mosquitto-go-auth", "goauth") for name in ASKING}
    for name in (*GATE, *ASKING):
        assert f"]({name}.md)" in index, name


def test_the_paths_of_the_hooks_are_those_of_the_program() -> None:
    """The table in docs/http-api.md has every route of every adapter."""
    page = text_of("docs/http-api.md")
    section = page[page.index("## Hooks") : page.index("## Reasons")]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE))
    assert rows.keys() == MODULES.keys()
    for kind, cell in rows.items():
        shown = {path.lstrip("/") for path in re.findall(r"`([^`]+)`", cell)}
        assert shown == adapter_of(kind).routes.keys(), kind
