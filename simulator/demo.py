"""``make demo``: the whole thing on this machine, from an empty directory to a revoked token, in under a minute.

Starts `authsvc up` as a child process, plays the quickstart scenario against it, revokes a token under a live
connection, and leaves the service running until Ctrl-C (``--once``: ends by itself).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.rule import Rule

from authsvc.cli.client import admin_key
from authsvc.cli.operator import example_of
from authsvc.cli.output import console, table
from authsvc.cli.problems import CommandFailed
from simulator import report, scenarios
from simulator.client import Client, ConnectRefused, connect
from simulator.places import Door
from simulator.provision import Api
from simulator.runner import Where, run

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
TENANT = "default"
_SHOWN = 4  # of a kind
_REVOKED = "demo.revoked"
_WIDTH = 120  # where there is no terminal


class Service:
    """`authsvc up` as a child process, with its log in a file beside its data."""

    def __init__(self, data: Path, mqtt: Door, http: Door) -> None:
        self.data = data
        self.mqtt = mqtt
        self.url = f"http://{http.host}:{http.port}"
        self.log = data.with_name(f"{data.name}.log")
        binds = ["--mqtt-bind", f"{mqtt.host}:{mqtt.port}", "--http-bind", f"{http.host}:{http.port}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own program, our own arguments
                [sys.executable, "-c", "from authsvc.cli import main; main()", "up", "--data", str(data), *binds],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demonstration, which then ends its child in order
            )

    def wait_ready(self) -> float:
        """Return the seconds until /readyz answered 200. Raises CommandFailed with the log's end."""
        began = time.monotonic()
        while time.monotonic() - began < READY_WITHIN_S:
            if self._process.poll() is not None:
                raise CommandFailed(f"authsvc up ended with status {self._process.returncode}:\n{self._log_end()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2.0, trust_env=False).status_code == httpx.codes.OK:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise CommandFailed(f"authsvc up was not ready within {READY_WITHIN_S:.0f} s:\n{self._log_end()}")

    def wait(self) -> int:
        """Return the exit status once it has ended by itself."""
        return self._process.wait()

    def stop(self) -> int:
        """End it as an operator would, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free(host: str, wanted: int) -> tuple[int, bool]:
    """Return the wanted port if nobody listens on it, else a free one, and whether it is the wanted one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1]), port == wanted
    raise CommandFailed(f"no free port on {host}")


def _heading(out: Console, title: str) -> None:
    out.print()
    out.print(Rule(title, align="left", style="cyan"))


async def play(service: Service, out: Console) -> bool:
    """Play the scenario, show what appeared, revoke a token live; return whether all was as expected."""
    scenario = scenarios.load(scenarios.find("quickstart"))
    where = Where(url=service.url, door=service.mqtt, tenant=TENANT, key=admin_key(service.data))
    _heading(out, f"2  {scenario.title}")
    verdict = await run(scenario, where, say=lambda line: out.print(f"· {line}"))
    report.show(verdict, out)
    if verdict.interrupted:
        raise KeyboardInterrupt
    async with Api(service.url, where.key, TENANT) as api:
        await _show_things(api, scenario.ground, out)
        revoked = await _revoke_live(api, service.mqtt, f"{scenario.name}-device", out)
    return verdict.ok and revoked


async def _show_things(api: Api, ground: str, out: Console) -> None:
    _heading(out, "3  The things that appeared")
    things = await api.items("/things", ground=ground)
    modules = [thing for thing in things if thing.get("gateway")]
    registered = [thing for thing in things if thing.get("token_id")]
    columns = ("key", "thing_definition", "state", "gateway", "client_id", "tags")
    out.print(table([*registered[:_SHOWN], *modules[:_SHOWN]], columns))
    out.print(
        f"{len(things)} things: {len(registered)} registered themselves by connecting, {len(modules)} modules were "
        f"bound to them, {len(things) - len(registered) - len(modules)} created by hand"
    )


async def _revoke_live(api: Api, door: Door, thing: str, out: Console) -> bool:
    """Revoke a device token under a live connection and show how soon that ends."""
    _heading(out, "4  A token is revoked under a live connection")
    token = await api.call("POST", f"/things/{thing}/tokens", body={"name": "demonstration"})
    client = await connect(door.host, door.port, client_id=_REVOKED, username=thing, token=token["token"])
    try:
        live = [one for one in await api.items("/sessions") if one["client_id"] == _REVOKED]
        out.print(table(live, ("client_id", "principal", "ground", "peer", "since")))
        asked = time.monotonic()
        ended = asyncio.create_task(_when_ended(client))
        await api.call("DELETE", f"/things/{thing}/tokens/{token['id']}")
        answered = time.monotonic()
        try:
            closed = await asyncio.wait_for(ended, 5.0)
        except TimeoutError:
            out.print("the connection did not end within 5 s", style="bold red")
            return False
        out.print(
            f"connection closed {(closed - asked) * 1000:.1f} ms after the DELETE was sent", style="green", end=""
        )
        out.print(f", which was answered after {(answered - asked) * 1000:.1f} ms")
    finally:
        await client.disconnect()
    left = [one for one in await api.items("/sessions") if one["client_id"] == _REVOKED]
    try:
        await connect(door.host, door.port, client_id=_REVOKED, username=thing, token=token["token"])
    except ConnectRefused as refusal:
        out.print(f"sessions of that client id now: {len(left)}; the same token again: {refusal}")
        return not left
    out.print("the revoked token was admitted again", style="bold red")
    return False


async def _when_ended(client: Client) -> float:
    await client.ended.wait()
    return time.monotonic()


async def go_on(service: Service, out: Console) -> None:
    """Print how to go on, with a command line that works as it stands."""
    _heading(out, "5  Go on")
    async with Api(service.url, admin_key(service.data), TENANT) as api:
        thing = "quickstart-device"
        answer = await api.call("POST", f"/things/{thing}/tokens", body={"name": "to play with", "expires_at": None})
        topic = f"{TENANT}/quickstart/{thing}/state/hello"
    program = Path(sys.executable).with_name("authsvc")
    authsvc = program if program.exists() else "authsvc"
    lines = (
        f"HTTP API     {service.url}/openapi.json",
        f"MQTT         {service.mqtt.host}:{service.mqtt.port}",
        f"admin key    {service.data / 'admin-token'}",
        f"log          {service.log}",
        "",
        f"export AUTHSVC_URL={service.url}",
        f"{authsvc} thing list --data {service.data}",
        f"{authsvc} refusals --follow --data {service.data}",
        f"mosquitto_pub -h {service.mqtt.host} -p {service.mqtt.port} -i hello -u {thing} \\",
        f"  -P {answer['token']} \\",
        f"  -t {topic} -q 1 -m hi",
    )
    for line in lines:
        out.print(line, soft_wrap=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=example_of("make demo ARGS=--once"))
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself instead of leaving the service running.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Data directory to use, instead of a fresh one.")] = None,
) -> None:
    """Start service and broker, play the quickstart scenario, revoke a token, and say how to go on."""
    out = console()
    if not out.is_terminal:
        out.width = _WIDTH
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the child must not be left behind
    began = time.monotonic()
    folder = data or Path(tempfile.mkdtemp(prefix="authsvc-demo-")) / "var"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        mqtt, http = _door("MQTT", 1883, out), _door("HTTP", 8080, out)
        service = Service(folder.absolute(), mqtt, http)
    except CommandFailed as failure:
        console(stderr=True).print(f"error: {failure}", soft_wrap=True)
        raise typer.Exit(1) from None
    try:
        _heading(out, "1  authsvc up")
        out.print(f"ready after {service.wait_ready():.1f} s: MQTT on {mqtt.host}:{mqtt.port}, HTTP on {service.url}")
        ok = asyncio.run(play(service, out))
        asyncio.run(go_on(service, out))
        took = f"demonstration took {time.monotonic() - began:.0f} s"
        out.print(f"\n{took}; {'everything as expected' if ok else 'something differs, see above'}", style="bold")
        if not once:
            out.print("the service goes on until Ctrl-C")
            _until_interrupted(service)
    except CommandFailed as failure:
        console(stderr=True).print(f"error: {failure}", soft_wrap=True)
        ok = False
    except KeyboardInterrupt:
        ok = False
    finally:
        status = service.stop()
    out.print(f"service ended with status {status}")
    if ok and data is None:
        shutil.rmtree(folder.parent)
    raise typer.Exit(0 if ok and status == 0 else 1)


def _door(name: str, wanted: int, out: Console) -> Door:
    port, as_wanted = free("127.0.0.1", wanted)
    if not as_wanted:
        out.print(f"port {wanted} is taken: {name} on {port}", style="yellow")
    return Door(host="127.0.0.1", port=port)


def _until_interrupted(service: Service) -> None:
    """Return at SIGINT or SIGTERM, or when the service ends by itself."""
    try:
        service.wait()
    except KeyboardInterrupt:
        return


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ.pop("AUTHSVC_ADMIN_TOKEN", None)  # the demonstration's service makes a key of its own
    app()
