"""`authsvc doctor --broker KIND --broker-file FILE`: each unsafe change to a safe file is found by its line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from authsvc.brokerconfig.findings import Finding
from authsvc.brokerconfig.hocon import read_hocon
from authsvc.brokerconfig.installation import Installation
from authsvc.brokerconfig.keyvalue import read_cuttlefish, read_mosquitto
from authsvc.brokerconfig.linters.erlang import terms
from authsvc.brokerconfig.linting import LINTERS, lint
from authsvc.brokerconfig.rendering import render
from authsvc.cli.root import app

RUN = CliRunner(env={"COLUMNS": "250", "TERM": "dumb"})
LAST = "the last line of the change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """In the printed file of `kind`, `old` becomes `new` (without `old` it is appended).

    `option` is then found in the first line that has `at`, comments left out; in the last line of the change if `at` is
    LAST; in line 0, which speaks of what is missing, if it is "".
    """

    kind: str
    old: str = ""
    new: str
    option: str
    at: str = ""  # "": what is missing, line 0
    version: str = ""
    severity: str = "unsafe"


def case(kind: str, old: str, new: str, option: str, at: str = "", **more: str) -> object:
    words = f"{kind}: {(new or 'without ' + old).strip().splitlines()[-1][:60]}"
    return pytest.param(Change(kind=kind, old=old, new=new, option=option, at=at, **more), id=words)


CHANGES = [
    # EMQX
    case("emqx", "no_match = deny", "no_match = allow", "authorization.no_match", "no_match = allow"),
    case("emqx", "  no_match = deny\n", "", "no_match", "authorization {", version="5.10"),
    case("emqx", "  cache {\n    enable = false", "  cache {\n    enable = true", "authorization.cache.enable", LAST),
    case("emqx", "  cache {\n    enable = false\n  }\n", "", "authorization.cache.enable", "authorization {"),
    case(
        "emqx",
        "settings {\n  node_cache {\n    enable = false",
        "settings {\n  node_cache {\n    enable = true",
        "authentication_settings.node_cache.enable",
        LAST,
    ),
    case("emqx", "      type = http", '      type = file\n      path = "acl.conf"', "sources", "type = file"),
    case("emqx", "  sources = [", "  nothing = [", "sources", "authorization {"),
    case(
        "emqx",
        "  sources = [",
        "  sources = [\n    {type = built_in_database, enable = true},",
        "sources",
        "built_in_database",
    ),
    case("emqx", "authentication = [", "authn = [", "authentication"),
    case(
        "emqx",
        "    enable = true\n    method",
        "    enable = false\n    method",
        "authentication",
        "authentication = [",
    ),
    case(
        "emqx",
        "authentication = [",
        "authentication = [\n  {mechanism = password_based, backend = built_in_database}",
        "authentication",
        "built_in_database",
    ),
    case("emqx", "", "authentication.2 { mechanism = jwt, backend = http }\n", "authentication", "authentication.2"),
    case("emqx", "mechanism = password_based", "mechanism = scram", "mechanism", "mechanism = scram"),
    case("emqx", "method = post", "method = get", "method", "method = get"),
    case("emqx", "http://127.0.0.1:8080/hooks/emqx/authn", "http://10.0.0.1/hooks/emqx/authn", "url", "10.0.0.1"),
    case("emqx", "http://127.0.0.1:8080/hooks/emqx/authn", "http://u:p@127.0.0.1/hooks/x", "url", "u:p@"),
    case("emqx", "http://127.0.0.1:8080/hooks/emqx/authz", "https://a.example/hooks/x", "ssl.verify", "    {"),
    case("emqx", '"http://127.0.0.1:8080/hooks', '"http://${username}.example/hooks', "url", "${username}.example"),
    case("emqx", "bind =", "enable_authn = false\n    bind =", "enable_authn", "enable_authn"),
    case("emqx", "bind =", "authentication = []\n    bind =", "authentication", "authentication = []"),
    case("emqx", "", "gateway.stomp {\n  enable = true\n}\n", "gateway.stomp", "gateway.stomp"),
    case("emqx", "", "allow_anonymous = true\n", "allow_anonymous", "allow_anonymous"),
    case("emqx", "", "authorization.topic_template_allow.plus = true\n", "topic_template_allow.plus", "allow.plus"),
    case("emqx", "bind =", 'mountpoint = "x"\n    bind =', "mountpoint", "mountpoint", severity="doubtful"),
    case("emqx", '"127.0.0.1:1883"', '"0.0.0.0:1883"', "listeners.tcp.default.bind", "0.0.0.0", severity="doubtful"),
    case("emqx", "  ws.default.enable = false\n", "", "listeners.ws.default", "listeners {", severity="doubtful"),
    case("emqx", "", "rewrite = [{action = all}]\n", "rewrite", LAST, severity="doubtful"),
    case("emqx", "", 'include "more.conf"\n', "include", "more.conf", severity="unknown"),
    case("emqx", "no_match = deny", "no_match = ${X}", "syntax", "${X}", severity="unknown"),
    case(
        "emqx",
        "",
        'authorization.sources.2 {type = http, method = post, url = "http://127.0.0.1/hooks/x"}\n',
        "sources",
        "authorization.sources.2",
    ),
    case("emqx", "", "authorization.sources = []\n", "sources", "authorization.sources", severity="doubtful"),
    case("emqx", "", "authorization.ignore_backend_failures = true\n", "ignore", LAST, severity="doubtful"),
    # VerneMQ
    case("vernemq", "allow_anonymous = off", "allow_anonymous = on", "allow_anonymous", "allow_anonymous = on"),
    case("vernemq", "plugins.vmq_passwd = off", "plugins.vmq_passwd = on", "plugins.vmq_passwd", "vmq_passwd = on"),
    case("vernemq", "plugins.vmq_passwd = off\n", "", "plugins.vmq_passwd"),
    case("vernemq", "plugins.vmq_acl = off", "plugins.vmq_acl = on", "plugins.vmq_acl", "vmq_acl = on"),
    case("vernemq", "plugins.vmq_diversity = off", "plugins.vmq_diversity = on", "plugins.vmq_diversity", "diversity"),
    case("vernemq", "plugins.vmq_webhooks = on\n", "", "plugins.vmq_webhooks"),
    *[
        case("vernemq", f".hook = {hook}\n", f".hook = {other}\n", hook)
        for hook, other in (
            ("auth_on_register", "on_register"),
            ("auth_on_publish", "on_publish"),
            ("auth_on_subscribe", "on_subscribe"),
            ("auth_on_register_m5", "on_register_m5"),
            ("auth_on_publish_m5", "on_publish_m5"),
            ("auth_on_subscribe_m5", "on_subscribe_m5"),
        )
    ],
    case(
        "vernemq",
        "vmq_webhooks.auth_on_publish.endpoint = http://127.0.0.1:8080",
        "vmq_webhooks.auth_on_publish.endpoint = http://auth.example.com",
        "vmq_webhooks.auth_on_publish.endpoint",
        "auth.example.com",
    ),
    case("vernemq", "", "vmq_webhooks.verify_peer = off\n", "vmq_webhooks.verify_peer", "verify_peer"),
    case("vernemq", "", "vmq_webhooks.x.hook = auth_on_register\n", "vmq_webhooks.x.hook", "vmq_webhooks.x.hook"),
    case("vernemq", "", "listener.tcp.x.allow_anonymous_override = on\n", "allow_anonymous_override", "override"),
    case("vernemq", "", "listener.tcp.x.auth_plugins = [vmq_passwd]\n", "auth_plugins", "auth_plugins"),
    case(
        "vernemq",
        "listener.http.default = 127.0.0.1",
        "listener.http.default = 0.0.0.0",
        "listener.http.default",
        "http.d",
    ),
    case("vernemq", "", "distributed_cookie = vmq\n", "distributed_cookie", "distributed_cookie = vmq"),
    case("vernemq", "register_during_netsplit = off", "register_during_netsplit = on", "netsplit", "netsplit = on"),
    case("vernemq", "tcp.default = 127.0.0.1", "tcp.default = 0.0.0.0", "listener.tcp", "0.0.0.0", severity="doubtful"),
    case("vernemq", "", "what is this\n", "syntax", "what is this", severity="unknown"),
    case("vernemq", "", "plugins.other = on\n", "plugins.other", LAST, severity="doubtful"),
    case("vernemq", "clustering = 127.0.0.1", "clustering = 0.0.0.0", "listener.vmq", LAST, severity="doubtful"),
    case("vernemq", "", "listener.ssl.x.use_identity_as_username = on\n", "identity", LAST, severity="doubtful"),
    case("vernemq", "", "listener.tcp.mountpoint = x\n", "mountpoint", LAST, severity="doubtful"),
    case("vernemq", "", "http_module.vmq_http_mgmt_api.auth.mode = noauth\n", "auth.mode", LAST),
    case("vernemq", "", "vmq_webhooks.x.hook = on_register\n", "vmq_webhooks.x.hook", LAST),
    case(
        "vernemq",
        "",
        "vmq_webhooks.x.endpoint = http://127.0.0.1/hooks/x\nvmq_webhooks.x.hook = auth_on_register\n",
        "vmq_webhooks.x.hook",
        LAST,
    ),
    # RabbitMQ
    case("rabbitmq", "mqtt.allow_anonymous = false", "mqtt.allow_anonymous = true", "mqtt.allow_anonymous", LAST),
    case("rabbitmq", "mqtt.allow_anonymous = false\n", "", "mqtt.allow_anonymous"),
    case("rabbitmq", "anonymous_login_user = none", "anonymous_login_user = guest", "anonymous_login_user", LAST),
    case("rabbitmq", "auth_backends.1 = http", "auth_backends.1 = internal", "auth_backends.1", "internal"),
    case("rabbitmq", "", "auth_backends.2 = rabbit_auth_backend_internal\n", "auth_backends.2", "backends.2"),
    case("rabbitmq", "auth_backends.1 = http\n", "", "auth_backends.1"),
    case("rabbitmq", "auth_backends.1 = http", "auth_backends.1 = cache", "auth_cache.cache_ttl", "= cache"),
    case(
        "rabbitmq",
        "auth_backends.1 = http",
        "auth_backends.1 = cache\nauth_cache.cached_backend = http\nauth_cache.cache_ttl = 60000",
        "auth_cache.cache_ttl",
        "60000",
    ),
    case("rabbitmq", "http_method = post", "http_method = get", "auth_http.http_method", "= get"),
    case("rabbitmq", "auth_http.http_method = post\n", "", "auth_http.http_method"),
    case("rabbitmq", "auth_http.topic_path = http://127.0.0.1:8080/hooks/rabbitmq/topic\n", "", "auth_http.topic_path"),
    case("rabbitmq", "user_path = http://127.0.0.1", "user_path = http://192.0.2.1", "auth_http.user_path", LAST),
    case("rabbitmq", "listeners.tcp = none\n", "", "listeners.tcp"),
    case("rabbitmq", "listeners.tcp = none", "listeners.tcp.1 = 5672", "listeners.tcp.1", "5672"),
    case("rabbitmq", "", "listeners.ssl.default = 5671\n", "listeners.ssl.default", "5671"),
    case("rabbitmq", "", "stomp.listeners.tcp.1 = 61613\n", "stomp.listeners.tcp.1", "61613"),
    case("rabbitmq", "guest = true", "guest = false", "loopback_users.guest", LAST),
    case("rabbitmq", "", "default_user = guest\n", "default_user", "default_user"),
    case("rabbitmq", "management.tcp.ip = 127.0.0.1", "management.tcp.ip = 0.0.0.0", "management.tcp.ip", "0.0.0.0"),
    case("rabbitmq", "", "auth_http.ssl_options.verify = verify_none\n", "ssl_options.verify", "verify_none"),
    case("rabbitmq", "mqtt.vhost", "mqtt.sparkplug = true\nmqtt.vhost", "sparkplug", "sparkplug", severity="doubtful"),
    case("rabbitmq", "", "mqtt.default_user = x\n", "default_user", LAST, version="3.10", severity="doubtful"),
    case("rabbitmq", "", "mqtt.ssl_cert_login = true\n", "mqtt.ssl_cert_login", LAST, severity="doubtful"),
    case("rabbitmq", "backends.1 = http", "backends.1.authn = http", "authn", LAST, severity="doubtful"),
    case("rabbitmq", "", "auth_backends.2 = cache\nauth_cache.cache_ttl = x\n", "ttl", LAST, severity="unknown"),
    case(
        "rabbitmq",
        "auth_backends.1 = http",
        "auth_cache.cache_ttl = 1000\nauth_backends.1 = cache",
        "auth_backends",
        LAST,
        severity="doubtful",
    ),
    case("rabbitmq", "", "auth_backends.2 = cache\nauth_cache.cache_refusals = true\n", "cache_refusals", LAST),
    case("rabbitmq", "", "auth_backends.2 = cache\nauth_cache.cached_backend = internal\n", "cached_backend", LAST),
    case("rabbitmq", "user_path = http:", "user_path = https:", "ssl_options.verify", severity="doubtful"),
    case("rabbitmq", "tcp.1 = 127.0.0.1", "tcp.1 = 0.0.0.0", "mqtt.listeners.tcp.1", LAST, severity="doubtful"),
    case("rabbitmq", "mqtt.listeners.tcp.1 = 127.0.0.1:1883\n", "", "mqtt.listeners.tcp", severity="doubtful"),
    case("rabbitmq", "management.tcp.ip = 127.0.0.1\n", "", "tcp.port", "management.tcp.port", severity="doubtful"),
    case("rabbitmq", "", "what is this\n", "syntax", LAST, severity="unknown"),
    # NanoMQ
    case("nanomq", "allow_anonymous = false", "allow_anonymous = true", "allow_anonymous", "allow_anonymous = true"),
    case("nanomq", "  allow_anonymous = false\n", "", "allow_anonymous", "auth {"),
    case("nanomq", "no_match = deny", "no_match = allow", "no_match", "no_match = allow"),
    case("nanomq", "  no_match = deny\n", "", "no_match", "auth {"),
    case("nanomq", "cache_ttl = 0s", "cache_ttl = 30s", "cache_ttl", "30s"),
    case("nanomq", "acl_req {", "other_req {", "acl_req", "http_auth ="),
    case("nanomq", "auth_req {", "other_req {", "auth_req", "http_auth ="),
    case("nanomq", "http_auth =", "http =", "http_auth", "auth {"),
    case("nanomq", "http_auth = {", "http_auth = {\n    enable = false", "http_auth", "enable = false"),
    case(
        "nanomq",
        "    acl_req {",
        '    super_req { url = "http://127.0.0.1/hooks/x" }\n    acl_req {',
        "super_req",
        "super_req {",
    ),
    case("nanomq", 'method = "POST"', 'method = "GET"', "auth_req.method", '"GET"'),
    case(
        "nanomq",
        "http://127.0.0.1:8080/hooks/nanomq/acl",
        "http://10.1.1.1/hooks/nanomq/acl",
        "acl_req.url",
        "10.1.1.1",
    ),
    case("nanomq", "", 'auth.password = {include "/etc/nanomq_pwd.conf"}\n', "auth.password", "nanomq_pwd"),
    case("nanomq", "", 'auth.acl.rules = [\n  {"permit": "allow"}\n]\n', "permit", '{"permit": "allow"}'),
    case("nanomq", "", 'auth.acl.rules = [\n  {"permit": "deny", "topics": ["#"]}\n]\n', "permit", '["#"]'),
    case(
        "nanomq", "", "http_server { ip_addr = 127.0.0.1, password = public }\n", "http_server.password", "http_server"
    ),
    case("nanomq", "", 'http_server { password = "zaidohNg" }\n', "http_server", "http_server"),
    case("nanomq", '"127.0.0.1:1883"', '"0.0.0.0:1883"', "listeners.tcp.bind", "0.0.0.0", severity="doubtful"),
    case("nanomq", "", "auth.http.enable = true\n", "auth.http", LAST, severity="unknown"),
    case("nanomq", "http://127.0.0.1:8080/hooks/nanomq/acl", "https://a.example/hooks/x", "acl_req.url", "a.example"),
    case("nanomq", 'password = "%P"', 'x = "%u"', "auth_req.params", "params = ", severity="doubtful"),
    case(
        "nanomq",
        'headers = {include "/etc/nanomq/nanomq-headers.conf"}',
        "",
        "auth_req.headers",
        "auth_req {",
        severity="doubtful",
    ),
    case(
        "nanomq",
        'headers = {include "/etc/nanomq/nanomq-headers.conf"}',
        'headers = {content-type = "application/x-www-form-urlencoded"}',
        "auth_req.headers",
        LAST,
        severity="doubtful",
    ),
    case("nanomq", "", "bridges.mqtt.x { server = y }\n", "bridges", LAST, severity="doubtful"),
    case("nanomq", "", "what is this\n", "syntax", LAST, severity="unknown"),
    case("nanomq", "", 'auth.acl = {include "/etc/other.conf"}\n', "include", LAST, severity="unknown"),
    case("nanomq", "", 'auth.acl.rules = [{"topics": ["x"]}]\n', "permit", LAST, severity="unknown"),
    # Mosquitto with the plugin
    case(
        "mosquitto-go-auth", "allow_anonymous false", "allow_anonymous true", "allow_anonymous", "allow_anonymous true"
    ),
    case("mosquitto-go-auth", "allow_anonymous false\n", "", "allow_anonymous", version="1.6"),
    case("mosquitto-go-auth", "backends http", "backends files, http", "auth_opt_backends", "backends files"),
    case("mosquitto-go-auth", "auth_opt_cache false", "auth_opt_cache true", "auth_opt_cache", "cache true"),
    case("mosquitto-go-auth", "auth_opt_disable_superuser true\n", "", "auth_opt_disable_superuser"),
    case("mosquitto-go-auth", "register user, acl", "register user", "auth_opt_http_register", "http_register"),
    case("mosquitto-go-auth", "auth_plugin /mosquitto/go-auth.so\n", "", "auth_plugin"),
    case("mosquitto-go-auth", "http_host 127.0.0.1", "http_host 10.0.0.1", "auth_opt_http_host", "10.0.0.1"),
    case(
        "mosquitto-go-auth",
        "with_tls false\nauth_opt_http_verify_peer true\n",
        "with_tls true\n",
        "auth_opt_http_verify_peer",
    ),
    case("mosquitto-go-auth", "method POST", "method GET", "auth_opt_http_method", "method GET"),
    case("mosquitto-go-auth", "log_level warn", "log_level debug", "auth_opt_log_level", "debug"),
    case("mosquitto-go-auth", "as_username false", "as_username true", "clientid_as_username", "as_username true"),
    case("mosquitto-go-auth", "", "acl_file /etc/acl\n", "acl_file", "acl_file"),
    case(
        "mosquitto-go-auth",
        "listener 1883 127.0.0.1",
        "listener 1883",
        "listener",
        "listener 1883",
        severity="doubtful",
    ),
    case(
        "mosquitto-go-auth", "settings false", "settings true\nlistener 1885 127.0.0.1", "per_listener", "settings true"
    ),
    case("mosquitto-go-auth", "auth_opt_http_getuser_uri /hooks/goauth/user\n", "", "getuser_uri"),
    case("mosquitto-go-auth", "_uri /hooks/goauth/acl", "_uri /x", "aclcheck_uri", LAST, severity="doubtful"),
    case("mosquitto-go-auth", "auth_opt_http_host 127.0.0.1\n", "", "auth_opt_http_host"),
    case("mosquitto-go-auth", "", "connection bridge\n", "connection", LAST, severity="doubtful"),
    # Mosquitto behind the gate
    case("mosquitto", "listener 1884 127.0.0.1", "listener 1884", "listener", "listener 1884"),
    case("mosquitto", "listener 1884 127.0.0.1", "listener 1884 0.0.0.0", "allow_anonymous", "allow_anonymous true"),
    case("mosquitto", "", "listener 9001 ::\nprotocol websockets\n", "listener", "listener 9001"),
    case("mosquitto", "listener 1884 127.0.0.1", "port 1884", "listener", "port 1884"),
    case("mosquitto", "listener 1884 127.0.0.1\n", "", "listener", version="1.6"),
    case("mosquitto", "", "acl_file /etc/acl\n", "acl_file", "acl_file /", severity="doubtful"),
    case("mosquitto", "", "connection bridge\n", "connection", "connection bridge", severity="doubtful"),
    case("mosquitto", "", "include_dir /nowhere/conf.d\n", "include_dir", "include_dir /", severity="unknown"),
    case("mosquitto", "", "topic read x\n", "topic", LAST, severity="unknown"),
    case("mosquitto", "", "{ }\n", "syntax", LAST, severity="unknown"),
    case("mosquitto", "", "message_size_limit 1000\n", "message_size_limit", LAST, severity="doubtful"),
    case("mosquitto", "allow_anonymous true", "allow_anonymous false", "allow_anonymous", LAST, severity="doubtful"),
    case(
        "mosquitto",
        "settings false",
        "settings true\nlistener 1999 10.0.0.1\nallow_anonymous true",
        "allow_anonymous",
        LAST,
    ),
]


def _changed(change: Change) -> tuple[str, int]:
    text = render(Installation(kind=change.kind, version=change.version))[0].text
    if change.old:
        assert change.old in text, change.old
        text = text.replace(change.old, change.new, 1)
    else:
        text += change.new
    if not change.at:
        return text, 0
    if change.at == LAST:
        return text, text.count("\n", 0, text.index(change.new) + len(change.new.rstrip())) + 1
    numbered = enumerate(text.splitlines(), 1)
    return text, next(number for number, line in numbered if change.at in line and not line.lstrip().startswith("#"))


@pytest.mark.parametrize("change", CHANGES)
def test_a_single_unsafe_change_is_found_with_its_line(change: Change, tmp_path: Path) -> None:
    """The printed file is clean; with one change its linter names the option and the line."""
    text, line = _changed(change)
    path = tmp_path / "changed.conf"
    path.write_text(text)
    found = lint(change.kind, [path], version=change.version)
    assert found, "not found"
    assert any(change.option in one.option and one.line == line and one.severity == change.severity for one in found), (
        "\n".join(f"{one.line} {one.severity} {one.option}" for one in found) + f"\nwanted {line}"
    )
    assert all(one.meaning and one.instead for one in found)


ACL = """%% the file that EMQX is shipped with
{allow, {username, {re, "^dashboard$"}}, subscribe, ["$SYS/#"]}.
{allow, {ipaddr, "127.0.0.1"}, all, ["$SYS/#", "#"]}.
{deny, all, subscribe, ["$SYS/#", {eq, "#"}, {eq, "+/#"}]}.
{deny, all, subscribe,
  ["#"]}.   % not $SYS
{allow, {security_profile, legacy}}.
{allow, all}.
"""


def test_an_acl_file_of_emqx_is_read_rule_by_rule(tmp_path: Path) -> None:
    """Whatever allows is unsafe; a `#` does not cover topics that begin with `$`."""
    path = tmp_path / "acl.conf"
    path.write_text(ACL)
    assert [(one.line, one.option) for one in lint("emqx", [path])] == [
        (2, "allow"),
        (3, "allow"),
        (5, "deny"),
        (7, "allow"),
        (8, "allow"),
    ]


def test_defaults_count_by_version(tmp_path: Path) -> None:
    """From 6.0 on EMQX denies what no rule speaks of; from 6.2 on its node caches are on."""
    path = tmp_path / "emqx.conf"
    path.write_text(render(Installation(kind="emqx", version="5.8"))[0].text.replace("  no_match = deny\n", ""))
    assert [one.option for one in lint("emqx", [path], version="5.8")] == ["no_match"]
    assert [one.option for one in lint("emqx", [path], version="6.0")] == []
    assert len(lint("emqx", [path], version="6.2")) == 2
    assert len(lint("emqx", [path])) == 3  # unknown: the worst that any version has


def test_a_later_file_counts(tmp_path: Path) -> None:
    """As in EMQX, what emqx.conf says replaces what cluster.hocon says; the other order shows what counts then."""
    safe, other = tmp_path / "emqx.conf", tmp_path / "cluster.hocon"
    safe.write_text(render(Installation(kind="emqx"))[0].text)
    other.write_text("authentication = [{mechanism = password_based, backend = built_in_database}]\n")
    assert lint("emqx", [other, safe]) == []
    (found,) = lint("emqx", [safe, other])
    assert (found.file, found.line) == (str(other), 1)


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        pytest.param("nanomq", 'rules = [\n  {"permit": "allow"}\n]\n', 2, id="nanomq rules"),
        pytest.param("nanomq", '"admin": "public"\n', 1, id="nanomq users"),
        pytest.param("rabbitmq", "[rabbitmq_mqtt,rabbitmq_auth_backend_http,\n rabbitmq_stomp].\n", 2, id="plugins"),
        pytest.param("rabbitmq", "[rabbitmq_mqtt].\n", 0, id="without the plugin that asks"),
    ],
)
def test_files_beside_the_main_one_are_known_by_what_they_hold(kind: str, text: str, line: int, tmp_path: Path) -> None:
    """Rules, users and plugins have files of their own."""
    path = tmp_path / "file"
    path.write_text(text)
    path.chmod(0o600)
    assert [one.line for one in lint(kind, [path]) if one.severity == "unsafe"] == [line]


def test_options_beside_rules_are_not_taken_for_a_file_of_rules(tmp_path: Path) -> None:
    """What looks like another kind of file is still read as what it is."""
    path = tmp_path / "nanomq.config"
    path.write_text("rules = []\nauth.allow_anonymous = true\n")
    assert {"allow_anonymous", "no_match", "http_auth"} <= {one.option for one in lint("nanomq", [path])}
    path.write_text("allow_anonymous = true\nno_match = allow\n")
    assert {"allow_anonymous", "no_match", "http_auth"} <= {one.option for one in lint("nanomq", [path])}
    path.write_text("auth_backends.1 = internal\n")
    assert "mqtt.allow_anonymous" in {one.option for one in lint("rabbitmq", [path])}


def test_a_folder_whose_files_are_named_is_not_called_unread(tmp_path: Path) -> None:
    """Mosquitto's conf.d, given file by file."""
    main, part = tmp_path / "mosquitto.conf", tmp_path / "conf.d" / "gate.conf"
    part.parent.mkdir()
    main.write_text(f"include_dir {part.parent}\n")
    part.write_text("listener 1884\n")
    assert [(one.file, one.line) for one in lint("mosquitto", [main, part])] == [(str(part), 1)]
    assert [one.severity for one in lint("mosquitto", [main])] == ["unknown"]


def test_erlang_terms_of_rabbitmq_are_searched_and_the_rest_is_said_to_be_unread(tmp_path: Path) -> None:
    """advanced.config can undo everything in rabbitmq.conf."""
    path = tmp_path / "advanced.config"
    path.write_text(
        "[\n {rabbit, [{auth_backends, [rabbit_auth_backend_internal]}]},\n {rabbitmq_mqtt, [\n"
        "  {allow_anonymous, true}]},\n {rabbitmq_auth_backend_http, [\n  {http_method, get},\n"
        "  {ssl_options, [{verify, verify_none}]}]}\n].\n"
    )
    assert [(one.line, one.severity) for one in lint("rabbitmq", [path])] == [
        (2, "unknown"),
        (2, "unsafe"),
        (3, "unknown"),
        (4, "unsafe"),
        (6, "unsafe"),
        (7, "unsafe"),
    ]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        pytest.param("emqx", 'authentication.1.headers.authorization = "Bearer abcdefghijklmnop"', id="emqx"),
        pytest.param("rabbitmq", "default_pass = abcdefghijklmnop", id="rabbitmq"),
        pytest.param("vernemq", "distributed_cookie = abcdefghijklmnop", id="vernemq"),
        pytest.param(
            "nanomq", 'auth.http_auth.acl_req.headers.authorization = "Bearer abcdefghijklmnop"', id="nanomq hook"
        ),
        pytest.param("nanomq", "http_server { ip_addr = 127.0.0.1, password = abcdefghijklmnop }", id="nanomq"),
        pytest.param("mosquitto", "remote_password abcdefghijklmnop", id="mosquitto"),
        pytest.param("mosquitto-go-auth", "auth_opt_http_host authsvc:abcdefghijklmnop@127.0.0.1", id="go-auth hook"),
        pytest.param("mosquitto-go-auth", "auth_opt_redis_password abcdefghijklmnop", id="go-auth"),
    ],
)
def test_a_secret_in_a_file_that_everybody_reads_is_found_and_not_shown(kind: str, line: str, tmp_path: Path) -> None:
    """By the file's mode; the finding holds the option, never its value."""
    path = tmp_path / "x.conf"
    text = render(Installation(kind=kind))[0].text + line + "\n"
    path.write_text(text)
    path.chmod(0o644)
    found = [one for one in lint(kind, [path]) if "every user" in one.meaning]
    assert [one.line for one in found] == [len(text.splitlines())]
    path.chmod(0o640)
    assert not [one for one in lint(kind, [path]) if "every user" in one.meaning]
    path.chmod(0o644)
    assert "abcdefgh" not in RUN.invoke(app, ["doctor", "--broker", kind, "--broker-file", str(path)]).output


def test_the_command_names_file_and_line_and_fails(tmp_path: Path) -> None:
    """Exit status 1 for what is unsafe or not understood, 0 for what is clean or merely doubtful."""
    path = tmp_path / "mosquitto.conf"
    path.write_text("listener 1884\nallow_anonymous true\n")
    arguments = ["doctor", "--broker", "mosquitto", "--broker-file", str(path)]
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 1
    assert f"{path}:1" in result.stdout
    assert f"{path}:2" in result.stdout
    shown = json.loads(RUN.invoke(app, [*arguments, "--json"]).stdout)
    assert {"file", "line", "severity", "option", "meaning", "instead"} <= set(shown[0])
    path.write_text("listener 1884 127.0.0.1\nallow_anonymous true\nconnection x\n")
    assert RUN.invoke(app, arguments).exit_code == 0
    path.write_text("include_dir /etc/x\n")
    assert RUN.invoke(app, arguments).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        pytest.param(["--broker", "emqx"], 2, "belong together", id="no file"),
        pytest.param(["--broker-file", "/etc/hostname"], 2, "belong together", id="no broker"),
        pytest.param(["--broker", "emqx", "--broker-file", "/nowhere"], 1, "cannot read", id="missing"),
        pytest.param(["--broker", "emqx", "--broker-file", "/etc"], 1, "no configuration file", id="folder"),
        pytest.param(["--broker", "hivemq", "--broker-file", "/etc/hostname"], 1, "no reader", id="unknown broker"),
        pytest.param(["--broker", "aedes", "--broker-file", "/etc/hostname"], 1, "a program", id="aedes"),
        pytest.param(
            ["--broker", "emqx", "--broker-file", "/etc/hostname", "--broker-version", "x"], 1, "version", id="version"
        ),
    ],
)
def test_what_cannot_be_looked_at_is_said(arguments: list[str], status: int, said: str) -> None:
    """Wrong usage is status 2, a file that cannot be read status 1."""
    result = RUN.invoke(app, ["doctor", *arguments])
    assert result.exit_code == status
    assert said in result.stderr


@pytest.mark.parametrize("kind", LINTERS)
@pytest.mark.parametrize("text", ["", "\n", "}", '"', "{{{", "a = [", "\x00", "x y z = = =", "%{"])
def test_rubbish_is_never_clean(kind: str, text: str, tmp_path: Path) -> None:
    """An empty or senseless file leaves every default in place and is not passed; Mosquitto's are safe."""
    path = tmp_path / "x"
    path.write_text(text)
    found = lint(kind, [path])
    if kind != "mosquitto" or text in {"}", "{{{", "\x00"}:
        assert found
    assert all(one.line <= 1 for one in found)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="{}[]=:,.\"\\#/ \nab1$+%'<", max_size=60))
def test_readers_never_raise_and_never_name_a_line_that_is_not_there(text: str) -> None:
    """Whatever the bytes."""
    last = text.count("\n") + 1
    document = read_hocon(text)
    assert all(1 <= entry.line <= last for entry in document.entries.values())
    assert all(1 <= line <= last for line, _ in document.unknown)
    assert all(option.line <= last for read in (read_cuttlefish(text), read_mosquitto(text)) for option in read.options)
    assert all(1 <= line <= last for line, _ in terms(text)[0])


def test_hocon_follows_its_own_rules() -> None:
    """Objects merge, arrays and values replace, dots make paths, elements have numbers, comments are none."""
    document = read_hocon(
        'a { b = 1 # one\n c: "x#y" } // two\na.c = [1, 2\n 3]\na { d { e = """q\nr""" } }\nf = [{g = h}]\nf.1.g = i\n'
        "k += 4\nk += 5\nlast = 60 s\n"
    )
    values = {".".join(path): entry.value for path, entry in document.entries.items()}
    assert values == {
        "a.b": "1",
        "a.c.1": "1",
        "a.c.2": "2",
        "a.c.3": "3",
        "a.d.e": "q\nr",
        "f.1.g": "i",
        "k.1": "4",
        "k.2": "5",
        "last": "60 s",
    }
    assert document.get("last").line == 11
    assert document.unknown == []


def test_findings_sort_by_file_as_given_and_line(tmp_path: Path) -> None:
    """So that they read like the files."""
    one, two = tmp_path / "b.conf", tmp_path / "a.conf"
    one.write_text("listener 1\nlistener 2\n")
    two.write_text("listener 3\n")
    found: list[Finding] = lint("mosquitto", [one, two])
    places = [(finding.file, finding.line) for finding in found]
    assert places == sorted(places, key=lambda place: (place[0] != str(one), place[1]))
