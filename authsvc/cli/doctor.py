"""`authsvc doctor`: looks at an installation from outside and says what is well, doubtful or wrong, and the way out.

Nothing here writes: the database is opened read-only, listeners are only connected to.
"""

from __future__ import annotations

import resource
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer

from authsvc.cli.around import ways_around
from authsvc.cli.doctor_broker import examine_broker
from authsvc.cli.operator import Json, example_of, failures
from authsvc.cli.output import Output
from authsvc.cli.problems import CommandFailed
from authsvc.cli.starting import BrokerConfig, Config, DataDir, settings_of

if TYPE_CHECKING:
    from authsvc.settings import Settings

UpstreamSeen = Annotated[
    str | None,
    typer.Option("--upstream", metavar="HOST:PORT|unix:PATH", help="The broker behind the gate, if not of --config."),
]
OK, WARN, FAIL = "ok", "warn", "fail"
_TIMEOUT_S = 3.0
_FILES_WANTED = 20_200  # 10,000 connections, each with its upstream socket, and some for the rest
_SANE_AFTER = 1_735_689_600  # 2025-01-01: a clock before it makes every token look unexpired
_SKEW_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look: `state` is ok, warn or fail; `detail` names what was seen and, unless ok, what to do."""

    check: str
    state: str
    detail: str


def examine(settings: Settings, *, url: str | None) -> Iterator[Check]:
    """Yield every check of an installation with these settings; `url` None is the one of ``http.bind``."""
    data = settings.service.data
    yield from _modes(data)
    running, lock = _lock(data)
    yield lock
    settings = _with_running_broker(settings)
    yield _sqlite()
    yield from _integrity(data)
    answered, http = _http(url or f"http://{settings.http.bind}", running=running)
    yield http
    yield _listener("MQTT listener", settings.mqtt.bind, running=running)
    yield _upstream(settings)
    for finding in ways_around(settings):
        yield Check(check="way around the gate", state=finding.state, detail=finding.detail)
    yield _open_files()
    yield _clock(answered)


def _modes(data: Path) -> Iterator[Check]:
    try:
        mode = stat.S_IMODE(data.stat().st_mode)
    except FileNotFoundError:
        yield Check(check="data directory", state=WARN, detail=f"`{data}` does not exist yet: authsvc up creates it")
        return
    except OSError as error:
        yield Check(check="data directory", state=FAIL, detail=f"`{data}`: {error.strerror}")
        return
    state = FAIL if mode & 0o077 else OK
    way_out = f": others can enter it; chmod 700 {data}" if state == FAIL else ""
    yield Check(check="data directory", state=state, detail=f"`{data}` has mode {mode:04o}{way_out}")
    open_to_others = []
    for path in sorted(data.iterdir()):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_file() and mode & 0o077 and (path.name == "admin-token" or path.suffix.startswith(".db")):
            open_to_others.append(f"{path.name} {mode:04o}")
    if (data / "admin-token").exists() or open_to_others:
        detail = f"readable by others: {', '.join(open_to_others)}; chmod 600" if open_to_others else "0600"
        yield Check(check="secret files", state=FAIL if open_to_others else OK, detail=detail)


def _lock(data: Path) -> tuple[bool, Check]:
    """Return whether some process holds the data directory, and what to say of it."""
    import fcntl  # noqa: PLC0415  # POSIX only, and needed nowhere else here

    path = data / "lock"
    try:
        with path.open("rb") as file:
            holder = file.read(200).decode("utf-8", "replace").strip()
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True, Check(check="lock", state=OK, detail=f"held by process {_printable(holder)}")
    except OSError:
        return False, Check(check="lock", state=OK, detail=f"nobody runs on `{data}`")
    return False, Check(check="lock", state=OK, detail=f"nobody runs on `{data}`")


def _sqlite() -> Check:
    from authsvc.store.faults import has_reset_race  # noqa: PLC0415  # the store is not loaded for other commands

    version = sqlite3.sqlite_version
    if has_reset_race(sqlite3.sqlite_version_info):
        detail = f"{version} has the WAL-reset race (fixed in 3.51.3): let no second program write to the database"
        return Check(check="SQLite", state=WARN, detail=detail)
    return Check(check="SQLite", state=OK, detail=version)


def _integrity(data: Path) -> Iterator[Check]:
    files = sorted(data.glob("*.db")) if data.is_dir() else []
    if not files:
        yield Check(check="database", state=WARN, detail=f"none in `{data}` yet: authsvc up creates it")
    for path in files:
        try:
            # Without a log to be read, `immutable` keeps SQLite from making -wal and -shm files of ours beside it.
            log = path.with_name(f"{path.name}-wal")
            mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
            connection = sqlite3.connect(f"file:{path}?{mode}", uri=True, timeout=_TIMEOUT_S)
            try:
                found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            finally:
                connection.close()
        except sqlite3.Error as error:
            yield Check(check="database", state=FAIL, detail=f"`{path}`: {error}; restore it from a backup")
            continue
        if found == ["ok"]:
            yield Check(check="database", state=OK, detail=f"`{path}` is sound, {path.stat().st_size / 1024:.0f} KiB")
        else:
            detail = f"`{path}` is damaged: {_printable('; '.join(found))}; restore it from a backup"
            yield Check(check="database", state=FAIL, detail=detail)


def _http(url: str, *, running: bool) -> tuple[httpx.Response | None, Check]:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if running:
            detail = f"{url} does not answer though a process holds the data directory ({type(error).__name__})"
            return None, Check(check="HTTP API", state=FAIL, detail=detail)
        return None, Check(
            check="HTTP API", state=WARN, detail=f"no service answers at {url} : start one with authsvc up"
        )
    if answer.status_code != httpx.codes.OK:
        return answer, Check(
            check="HTTP API", state=FAIL, detail=f"{url}/readyz answers {answer.status_code}: {_why(answer)}"
        )
    return answer, Check(check="HTTP API", state=OK, detail=f"{url} is ready")


def _why(answer: httpx.Response) -> str:
    """Return what an unready service says is wrong, on one line."""
    return _printable(" ".join(answer.text.split())[:300])


def _listener(name: str, bind: str, *, running: bool) -> Check:
    failure = _unreachable(bind)
    if failure is None:
        return Check(check=name, state=OK, detail=f"{bind} accepts connections")
    return Check(check=name, state=FAIL if running else WARN, detail=f"{bind}: {failure}")


def _with_running_broker(settings: Settings) -> Settings:
    """Return the settings with the managed broker that runs now: `--broker` of `authsvc up` stands in no file."""
    if settings.mqtt.upstream or settings.mqtt.broker != "amqtt":
        return settings
    for name in ("mosquitto", "rumqttd"):
        if _lock(settings.service.data / name)[0]:
            mqtt = settings.mqtt.model_copy(update={"broker": name})
            return settings.model_copy(update={"mqtt": mqtt})
    return settings


def _upstream(settings: Settings) -> Check:
    upstream = settings.mqtt.upstream.removeprefix("unix:")
    if not upstream and settings.mqtt.broker != "amqtt":
        return Check(check="upstream", state=OK, detail=f"a managed broker: `{settings.mqtt.broker}`")
    if not upstream:
        return Check(check="upstream", state=OK, detail="the embedded broker: several hundred devices, nothing durable")
    failure = _unreachable(upstream)
    if failure is None:
        return Check(check="upstream", state=OK, detail=f"{upstream} accepts connections")
    return Check(check="upstream", state=FAIL, detail=f"{upstream}: {failure}; start the broker behind the gate")


def _unreachable(address: str) -> str | None:
    """Return why nothing can be connected to at ``host:port`` or a socket path, None if something can."""
    try:
        if "/" in address:
            with socket.socket(socket.AF_UNIX) as unix:
                unix.settimeout(_TIMEOUT_S)
                unix.connect(address)
            return None
        host, _, port = address.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104  # compared
        with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S):
            return None
    except ValueError:
        return "not an address of the form HOST:PORT"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES_WANTED:
        detail = f"hard limit {hard}: fewer than 10,000 connections fit; raise LimitNOFILE or ulimit -Hn"
        return Check(check="open files", state=WARN, detail=detail)
    return Check(check="open files", state=OK, detail=f"limit {soft}, raised to {hard} at start")


def _clock(answer: httpx.Response | None) -> Check:
    now = time.time()
    if now < _SANE_AFTER:
        return Check(check="clock", state=FAIL, detail=f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}: set it")
    if answer is not None and (date := answer.headers.get("date")):
        try:
            skew_s = abs(parsedate_to_datetime(date).timestamp() - now)
        except ValueError:
            skew_s = 0.0
        if skew_s > _SKEW_S:
            detail = f"the service's clock differs by {skew_s:.0f} s: tokens expire at another time than you think"
            return Check(check="clock", state=WARN, detail=detail)
    return Check(check="clock", state=OK, detail=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def add(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command("doctor", epilog=example_of("authsvc doctor --data var"))
    def doctor(
        data: DataDir = None,
        config: Config = None,
        broker_config: BrokerConfig = None,
        upstream: UpstreamSeen = None,
        mqtt_bind: Annotated[
            str | None, typer.Option("--mqtt-bind", metavar="HOST:PORT", help="MQTT listener: 127.0.0.1:1883.")
        ] = None,
        url: Annotated[
            str | None, typer.Option("--url", envvar="AUTHSVC_URL", help="Where the service should answer.")
        ] = None,
        broker: Annotated[
            str,
            typer.Option("--broker", metavar="KIND", help="Look at a broker's own files instead, as emqx."),
        ] = "",
        broker_file: Annotated[
            list[Path] | None,
            typer.Option("--broker-file", metavar="FILE", help="One of them; may be repeated, the later one counts."),
        ] = None,
        broker_version: Annotated[
            str,
            typer.Option(
                "--broker-version", metavar="VERSION", help="That broker's version, as 5.8: its defaults differ."
            ),
        ] = "",
        as_json: Json = False,
    ) -> None:
        """Check an installation, or a broker's configuration files.

        Exit status 1 if something fails. With --broker that is whatever is unsafe in its files, or was not understood;
        what is doubtful is only told.
        """
        if bool(broker) != bool(broker_file) or (broker_version and not broker):
            raise typer.BadParameter("--broker KIND and --broker-file FILE belong together")
        with failures():
            if broker_file:
                well = examine_broker(broker, broker_file, version=broker_version, out=Output(as_json=as_json))
                raise typer.Exit(0 if well else 1)
            checks: list[Check] = []
            try:
                settings = settings_of(
                    config,
                    service__data=data,
                    mqtt__bind=mqtt_bind,
                    mqtt__broker_config=broker_config,
                    mqtt__upstream=upstream,
                )
            except CommandFailed as failure:
                checks.append(Check(check="settings", state=FAIL, detail=str(failure)))
            else:
                checks.append(Check(check="settings", state=OK, detail=str(config) if config else "defaults"))
                checks.extend(examine(settings, url=url))
            rows = [asdict(check) for check in checks]
            Output(as_json=as_json).rows(rows, ("check", "state", "detail"), key="check", empty="")
            if any(check.state == FAIL for check in checks):
                raise typer.Exit(1)
