"""Files that look safe and are not, each as its broker reads it; and some that look odd and are safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.brokerconfig.installation import Installation
from authsvc.brokerconfig.linters import mosquitto
from authsvc.brokerconfig.linters.sources import Source
from authsvc.brokerconfig.linting import lint
from authsvc.brokerconfig.rendering import render

Said = set[tuple[str, str, int]]


def said(kind: str, folder: Path, **texts: str) -> Said:
    """Return severity, option and line of what is found in files with these names (`__` for a dot) and texts."""
    paths = []
    for name, text in texts.items():
        path = folder / name.replace("__", ".")
        path.write_text(text)
        path.chmod(0o600)
        paths.append(path)
    return {(one.severity, one.option, one.line) for one in lint(kind, paths)}


PRIVATE = "listener 1884 127.0.0.1\nallow_anonymous true\n"


@pytest.mark.parametrize(
    ("text", "option", "line"),
    [
        ("listener 1884 0.0.0.0\nbind_address 127.0.0.1\n", "listener", 1),
        ("bind_address 192.0.2.1\n", "bind_address", 1),
        ("max_connections 100\n" + PRIVATE, "max_connections", 1),
        ("cafile /c\n" + PRIVATE, "cafile", 1),
        ("require_certificate true\n" + PRIVATE, "require_certificate", 1),
        ("protocol websockets\n" + PRIVATE, "protocol", 1),
        ("bind_interface eth0\n" + PRIVATE, "bind_interface", 1),
        (PRIVATE + "per_listener_settings 1\nlistener 8883\nallow_anonymous 1\n", "allow_anonymous", 5),
        ("per_listener_settings true\npassword_file /p\n" + PRIVATE, "password_file", 2),
    ],
)
def test_mosquitto_opens_a_listener_that_nobody_named(text: str, option: str, line: int, tmp_path: Path) -> None:
    """An option of a listener above all of them opens the default one, which alone `bind_address` speaks of."""
    assert ("unsafe", option, line) in said("mosquitto", tmp_path, main__conf=text)


@pytest.mark.parametrize(
    "text",
    [
        "bind_address 127.0.0.1\nport 1884\nallow_anonymous true\n",
        "port 1884\nlistener 1885 127.0.0.1\nbind_address 127.0.0.1\nallow_anonymous true\n",
        "max_connections -1\nprotocol mqtt\nrequire_certificate false\n" + PRIVATE,
        PRIVATE + "max_connections 100\ncertfile /c\n",
        "bind_interface lo\nallow_anonymous true\n",
        "listener 1884\nbind_interface lo\nallow_anonymous 1\n",
        "password_file /p\n" + PRIVATE,
    ],
)
def test_mosquitto_that_opens_none_is_not_complained_of(text: str, tmp_path: Path) -> None:
    """In whatever order it is written."""
    assert said("mosquitto", tmp_path, main__conf=text) == set()


def test_the_topics_of_a_bridge_are_not_taken_for_access_rules(tmp_path: Path) -> None:
    """The bridge itself is told."""
    text = PRIVATE + "connection b\naddress 192.0.2.1\ntopic # both\n"
    assert said("mosquitto", tmp_path, main__conf=text) == {("doubtful", "connection", 3)}


def test_a_file_of_mosquittos_folder_that_was_not_named_is_missed(tmp_path: Path) -> None:
    """One of two is not all; what is no ``.conf`` Mosquitto does not read either."""
    folder = tmp_path / "conf.d"
    folder.mkdir()
    main, one, two = tmp_path / "mosquitto.conf", folder / "a.conf", folder / "b.conf"
    main.write_text(f"include_dir {folder}\n")
    assert lint("mosquitto", [main]) == []  # nothing is in it
    one.write_text(PRIVATE)
    (folder / "README").write_text("listener 1\n")
    assert lint("mosquitto", [main, one]) == []
    two.write_text("listener 1885\n")
    assert [found.option for found in lint("mosquitto", [main, one])] == ["include_dir"]
    assert [found.option for found in lint("mosquitto", [main, one, two])] == ["allow_anonymous", "listener"]


def test_a_folder_of_another_machine_is_taken_as_read_when_a_file_of_it_is_named(tmp_path: Path) -> None:
    """Nobody can look into it here; the file itself is none of what it includes."""
    main, part = tmp_path / "mosquitto.conf", tmp_path / "gone" / "a.conf"
    main.write_text(f"include_dir {part.parent}\n{PRIVATE}")
    source = Source(file=str(main), text=main.read_text())
    beside = Source(file=str(part), text="")
    assert [found.option for found in mosquitto.lint([source], ())] == ["include_dir"]
    assert list(mosquitto.lint([source, beside], ())) == []


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x0c", "\r"])
def test_only_the_end_of_a_line_ends_a_comment(end: str, tmp_path: Path) -> None:
    """To the broker the rest is comment, too, and its default holds."""
    text = render(Installation(kind="rabbitmq"))[0].text
    text = text.replace("mqtt.allow_anonymous = false", f"# so:{end}mqtt.allow_anonymous = false")
    path = tmp_path / "rabbitmq.conf"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    assert [(one.severity, one.option, one.line) for one in lint("rabbitmq", [path])] == [
        ("unsafe", "mqtt.allow_anonymous", 0)
    ]


def test_a_comment_without_a_space_hides_no_value(tmp_path: Path) -> None:
    """RabbitMQ 3.10 reads `true`; what another version reads is not guessed."""
    text = render(Installation(kind="rabbitmq"))[0].text + "mqtt.allow_anonymous = true#not\n"
    line = text.count("\n")
    assert said("rabbitmq", tmp_path, main__conf=text) == {
        ("unknown", "syntax", line),
        ("unsafe", "mqtt.allow_anonymous", line),
    }


ADDED = [
    ("mosquitto-go-auth", "allow_anonymous 1", "allow_anonymous", "unsafe"),
    ("mosquitto-go-auth", "plugin /usr/lib/mosquitto_dynamic_security.so", "plugin", "unsafe"),
    ("mosquitto-go-auth", "auth_plugin /opt/go-auth.so", "auth_plugin", "unsafe"),
    ("mosquitto-go-auth", "global_plugin /opt/other.so", "global_plugin", "unsafe"),
    ("mosquitto-go-auth", "plugin_load x /opt/other.so", "plugin_load", "unsafe"),
    ("mosquitto-go-auth", "plugin_opt_backends http, files", "auth_opt_backends", "unsafe"),
    ("mosquitto-go-auth", "plugin_opt_disable_superuser false", "auth_opt_disable_superuser", "unsafe"),
    ("mosquitto-go-auth", "use_identity_as_username true", "use_identity_as_username", "unsafe"),
    ("mosquitto-go-auth", "use_subject_as_username 1", "use_subject_as_username", "unsafe"),
    ("emqx", "authentication = {mechanism = password_based, backend = ldap}", "syntax", "unknown"),
    ("emqx", "authorization.sources { }", "syntax", "unknown"),
    ("emqx", "listeners.quic.x { bind = 14567, enable_authn = false }", "enable_authn", "unsafe"),
    ("emqx", "listeners.quic.x.authentication = []", "listeners.quic.x.authentication", "unsafe"),
    ("emqx", 'exhook.servers = [{name = x, url = "http://127.0.0.1:9000"}]', "exhook.servers", "unsafe"),
    ("emqx", 'auto_subscribe.topics = [{topic = "default/#"}]', "auto_subscribe.topics", "unsafe"),
    ("emqx", "dashboard.default_password = public", "dashboard.default_password", "unsafe"),
    ("emqx", 'plugins.states = [{name_vsn = "x-1", enable = true}]', "plugins.states", "doubtful"),
    ("emqx", "rule_engine.rules.r { sql = x }", "rule_engine.rules", "doubtful"),
    ("emqx", "bridges.mqtt.x { enable = true }", "bridges", "doubtful"),
    ("emqx", "cluster.links = [{name = x}]", "cluster.links", "doubtful"),
    ("nanomq", "rules.repub = [{server = x}]", "rules.repub", "doubtful"),
    ("vernemq", "allow_multiple_sessions = on", "allow_multiple_sessions", "unsafe"),
    ("vernemq", "listener.tcp.default.allow_multiple_sessions = on", "allow_multiple_sessions", "unsafe"),
    ("vernemq", "trade_consistency = on", "trade_consistency", "unsafe"),
    ("rabbitmq", "web_stomp.tcp.port = 15674", "web_stomp.tcp.port", "unsafe"),
    ("rabbitmq", "web_mqtt.tcp.port = 15675", "web_mqtt.tcp.port", "doubtful"),
    ("rabbitmq", "management.listener.ip = 0.0.0.0", "management.listener.ip", "unsafe"),
    ("rabbitmq", "management.listener.port = 15672", "management.listener.port", "doubtful"),
]


@pytest.mark.parametrize(("kind", "line", "option", "severity"), ADDED, ids=[f"{one[0]}: {one[1]}" for one in ADDED])
def test_one_more_line_in_the_printed_file(kind: str, line: str, option: str, severity: str, tmp_path: Path) -> None:
    """Another spelling, another part of the broker: found where it stands."""
    text = render(Installation(kind=kind))[0].text
    found = said(kind, tmp_path, main__conf=f"{text}{line}\n")
    assert any(one[0] == severity and option in one[1] and one[2] == text.count("\n") + 1 for one in found), found


@pytest.mark.parametrize(
    "line", ["exhook.servers = [{name = x, enable = false}]", "auto_subscribe.topics = []", "plugins.states = []"]
)
def test_what_is_switched_off_in_emqx_is_not_complained_of(line: str, tmp_path: Path) -> None:
    """Nor an empty list."""
    assert said("emqx", tmp_path, main__conf=f"{render(Installation(kind='emqx'))[0].text}{line}\n") == set()


def test_files_of_emqx_are_merged_and_do_not_hide_one_another(tmp_path: Path) -> None:
    """A listener of the first file stays when the second names another; an element is changed from outside."""
    text = render(Installation(kind="emqx"))[0].text
    asks_nobody = text.replace("bind =", "enable_authn = false\n    bind =", 1)
    line = asks_nobody[: asks_nobody.index("enable_authn")].count("\n") + 1
    more = 'listeners.tcp.more.bind = "127.0.0.1:1999"\n'
    assert said("emqx", tmp_path, a=asks_nobody, b=more) == {("unsafe", "enable_authn", line)}
    assert said("emqx", tmp_path, a=text, b=more) == set()
    found = said("emqx", tmp_path, a=text, b="authentication.1 {\n  backend = ldap\n}\n")
    assert found == {("unsafe", "authentication", 2)}


def test_what_emqx_includes_inside_a_section_is_not_vouched_for(tmp_path: Path) -> None:
    """Read by itself the file would stand in another place."""
    text = render(Installation(kind="emqx"))[0].text.replace("authorization {", 'authorization {\ninclude "more"', 1)
    assert [one[:2] for one in said("emqx", tmp_path, main=text, more="deny_action = ignore\n")] == [
        ("unknown", "include")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{rabbitmq_mqtt,\n [{allow_anonymous,\n  true}]}].", {("unknown", 1), ("unsafe", 3)}),
        ("[{'rabbitmq_mqtt', [{'allow_anonymous', true}]}].", {("unknown", 1), ("unsafe", 1)}),
        ('[{rabbitmq_auth_backend_http,\n [{user_path, "http://192.0.2.1/%20"}]}].', {("unknown", 2)}),
        ("[{rabbitmq_auth_backend_http, [{http_method,\n get}]}].", {("unsafe", 2)}),
        ("[{rabbit,\n [{auth_backends,\n [http,\n internal]}]}].", {("unknown", 1), ("unsafe", 4)}),
        ("[{rabbitmq_auth_backend_http, []}, {kernel, []}].", {("unknown", 1)}),
        ("[{rabbitmq_auth_backend_http, [{ssl_options, [{verify, verify_peer}]}]}].", set()),
        ("%% nothing\n[].", set()),
    ],
)
def test_terms_of_rabbitmq_are_read_across_lines(text: str, expected: set[tuple[str, int]], tmp_path: Path) -> None:
    """Also where atoms are quoted; whatever is not of the HTTP backend's TLS is said to be unread."""
    assert {(one[0], one[2]) for one in said("rabbitmq", tmp_path, advanced__config=text)} == expected


def test_plugins_of_rabbitmq_are_known_by_name(tmp_path: Path) -> None:
    """Quoted or not; an empty list has not even ours."""
    text = "['rabbitmq_mqtt', rabbitmq_auth_backend_http,\n 'rabbitmq_stomp', rabbitmq_shovel,\n rabbitmq_management]."
    assert said("rabbitmq", tmp_path, enabled_plugins=text) == {
        ("unsafe", "rabbitmq_stomp", 2),
        ("doubtful", "rabbitmq_shovel", 2),
    }
    assert {one[0] for one in said("rabbitmq", tmp_path, enabled_plugins="[].\n")} == {"unsafe"}
