"""Settings: one order of precedence, no misspelt key, and a file that shows the defaults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from authsvc.core.errors import InvalidInput
from authsvc.settings import Settings, described, load_settings
from broker.limits import Limits

SHIPPED = Path(__file__).parents[2] / "config" / "authsvc.toml"


def test_the_shipped_file_holds_every_setting_with_its_default():
    """What the file shows holds without it; comments are `mqtt.bind`, for setting it has a meaning, and brokers."""
    assert load_settings(SHIPPED, environ={}) == Settings()
    text = SHIPPED.read_text().replace('# bind = "127.0.0.1:1883"', 'bind = "127.0.0.1:1883"')
    content = tomllib.loads(re.sub(r"^# (\[brokers\.NAME\]|\w+ = .*)$", r"\1", text, flags=re.MULTILINE))
    content["brokers.NAME"] = content.pop("brokers")["NAME"]
    shown = {f"{section}.{key}" for section, values in content.items() for key in values}
    assert shown == {name for name, *_ in described()}


def test_every_setting_is_described():
    """Each has a variable of its own and a sentence that ends."""
    for name, variable, _, text in described():
        assert variable == "AUTHSVC__" + name.replace(".", "__").upper()
        assert text.endswith("."), name


def test_the_limits_are_those_of_the_gate():
    """The `[limits]` of the settings are the gate's, name by name and default by default."""
    assert Limits(**Settings().limits.model_dump(), refusal_linger_s=Limits().refusal_linger_s) == Limits()


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path):
    """Of file, environment and flags the later wins, key by key."""
    file = tmp_path / "a.toml"
    file.write_text('[service]\ndata = "f"\nname = "f"\n[http]\nbind = "f:1"\n')
    environ = {"AUTHSVC__SERVICE__NAME": "e", "AUTHSVC__HTTP__BIND": "e:1", "AUTHSVC_ADMIN_TOKEN": "not a setting"}
    settings = load_settings(file, environ=environ, flags={"http.bind": "g:1", "mqtt.bind": None})
    assert (str(settings.service.data), settings.service.name, settings.http.bind) == ("f", "e", "g:1")
    assert "bind" not in settings.mqtt.model_fields_set


WRONG = [
    pytest.param("[limits]\nmax_conections = 5\n", {}, ["limits.max_conections", "max_connections"], id="misspelt key"),
    pytest.param("[limit]\nx = 5\n", {}, ["`limit`", "limits"], id="misspelt section"),
    pytest.param("data = 5\n", {}, ["`data`", "section"], id="outside a section"),
    pytest.param("", {"AUTHSVC__LOG__LEVLE": "info"}, ["AUTHSVC__LOG__LEVLE", "level"], id="misspelt variable"),
    pytest.param('[log]\nlevel = "loud"\n', {}, ["log.level"], id="no such level"),
    pytest.param("", {"AUTHSVC__LIMITS__MAX_CONNECTIONS": "0"}, ["limits.max_connections"], id="out of range"),
    pytest.param("[limits\n", {}, ["not TOML"], id="not TOML"),
    pytest.param("[brokers.emqx]\nsecrt = 5\n", {}, ["brokers.emqx.secrt", "did you mean `secret`"], id="a broker's"),
    pytest.param("[brokers]\nkind = 'emqx'\n", {}, ["brokers.kind", "[brokers.NAME]"], id="a broker without a name"),
    pytest.param("[brokers.'a/b']\nkind = 'emqx'\n", {}, ["a/b", "no name"], id="a broker that is no path"),
    pytest.param("", {"AUTHSVC__BROKERS__E__HOLD_S": "0"}, ["brokers.e.hold_s"], id="a broker's, out of range"),
]


@pytest.mark.parametrize(("text", "environ", "named"), WRONG)
def test_a_wrong_setting_is_an_error_that_names_it_and_the_way_out(tmp_path: Path, text, environ, named):
    """A limit that is misspelt must not be a limit that is absent."""
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_settings(file, environ=environ)
    for part in named:
        assert part in caught.value.detail


def test_a_broker_is_a_section_of_its_own(tmp_path: Path):
    """File and environment make one section per broker; an underscore of a variable stands for a hyphen."""
    file = tmp_path / "a.toml"
    file.write_text('[brokers.emqx]\nhold_s = 5\nsecret = "0123456789abcdef"\n')
    environ = {"AUTHSVC__BROKERS__EMQX__HOLD_S": "7", "AUTHSVC__BROKERS__MY_RABBIT__KIND": "rabbitmq"}
    brokers = load_settings(file, environ=environ).brokers
    assert set(brokers) == {"emqx", "my-rabbit"}
    assert brokers["emqx"].hold_s == 7
    assert brokers["emqx"].secret.get_secret_value() == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(brokers)


def test_a_missing_file_is_named(tmp_path: Path):
    """Never the defaults in place of a file that was asked for."""
    with pytest.raises(InvalidInput, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml", environ={})
