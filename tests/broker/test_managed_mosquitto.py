"""Brokers as children: started, watched, restarted and stopped, private, never orphaned and never two."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from authsvc.core.errors import UpstreamUnavailable
from broker import wire
from broker.limits import Limits
from broker.managed import mosquitto
from broker.managed.child import BrokerNotStarted, Child, RunAs, make_private, user_to_run_as, write_private
from broker.managed.mosquitto import configuration, find_mosquitto, managed_mosquitto
from broker.managed.upstream import ManagedUpstream
from tests.broker.link_owner import connected, subscribe
from tests.broker.upstreams import somebody

A = "A" * 22
IS_ROOT = os.geteuid() == 0


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition, *, within_s=8.0):
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory as `authsvc up` makes it: of its own user, closed to all others."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
async def upstream(data: Path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    running = managed_mosquitto(data / "mosquitto", limits=Limits(), run_as=somebody())
    await running.start()
    yield running
    await running.stop()


async def test_nobody_else_reaches_it_or_what_it_keeps(upstream, data):
    """A socket and no port; a directory of the child's user alone, below the service's own."""
    psutil = pytest.importorskip("psutil")
    child = psutil.Process(upstream.child.pid)
    assert child.net_connections("inet") == []
    assert child.uids().effective != 0
    folder = data / "mosquitto"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == child.uids().effective
    for file in folder.iterdir():
        if not stat.S_ISSOCK(file.stat().st_mode):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_not_even_its_own_user_enters_the_data_directory(upstream, data):
    """The child works in its directory without a way to it: another process of that user has none."""
    if not IS_ROOT:
        return  # the child is of our own user then
    look = f"import os; os.setuid({somebody().uid}); os.listdir({str(data / 'mosquitto')!r})"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    assert upstream.reachable


async def test_what_was_acknowledged_is_there_after_a_restart_in_order(data):
    """Session, queue and retained message: saved at SIGTERM, which is how we stop it."""
    for restart in range(2):
        running = managed_mosquitto(data / "mosquitto", limits=Limits(), run_as=somebody())
        await running.start()
        link, owner = await connected(running, clean=False)
        assert link.session_present == bool(restart)
        if restart:
            assert [message.payload for message in await owner.published(100)] == [b"%d" % n for n in range(100)]
        else:
            await subscribe(link, owner, ("q", 1))
            link.abort()
            await link.wait_closed()
            for number in range(100):
                await running.publish("q", b"%d" % number, qos=1, retain=False)
        await running.stop()


async def test_it_is_restarted_when_it_dies_and_what_was_saved_is_there(upstream):
    """kill -9: clients are told, a CONNECT is refused at once, and soon everything works again."""
    link, owner = await connected(upstream)
    before = upstream.child.pid
    os.kill(before, signal.SIGKILL)
    assert isinstance(await owner.ended(), UpstreamUnavailable)
    await until(lambda: not upstream.reachable)
    began = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamUnavailable):
        await connected(upstream)
    assert asyncio.get_running_loop().time() - began < 0.1
    await until(lambda: upstream.reachable)
    assert upstream.child.restarts == 1
    assert upstream.child.pid != before
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("x", 0))


async def test_stop_ends_it(data):
    """Also one that does not want to: after SIGTERM comes SIGKILL."""
    running = managed_mosquitto(data / "mosquitto", limits=Limits(), run_as=somebody())
    await running.start()
    pid = running.child.pid
    os.kill(pid, signal.SIGSTOP)
    await running.stop()
    assert not alive(pid)


async def test_it_is_stopped_after_the_last_connection_has_gone(upstream, monkeypatch):
    """What the gate sends at the end, it still gets; and nobody takes its end for a broker that was lost."""
    _, owner = await connected(upstream)
    stop, seen = upstream.child.stop, []

    async def noted():
        seen.append((upstream.child.serves, upstream.reachable, len(owner.closed)))
        await stop()

    monkeypatch.setattr(upstream.child, "stop", noted)
    await upstream.stop()
    assert seen == [(True, False, 1)]


PARENT = """
import asyncio, sys
from pathlib import Path
from broker.limits import Limits
from broker.managed.{kind} import managed_{kind}
from tests.broker.upstreams import somebody

async def main():
    upstream = managed_{kind}(Path(sys.argv[1]), limits=Limits(), run_as=somebody())
    await upstream.start()
    print(upstream.child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def parent_of(kind: str, folder: Path) -> tuple[asyncio.subprocess.Process, int]:
    """Start a process that runs a broker; return it and the broker's pid."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT.format(kind=kind), str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    while not (line := await process.stdout.readline()).strip().isdigit():
        assert line, "it did not start"
    return process, int(line)


@pytest.mark.parametrize("kind", ["mosquitto", "rumqttd"])
async def test_it_dies_with_us_however_we_die(kind, data):
    """kill -9 of the service leaves no broker behind."""
    pytest.importorskip("iotcore") if kind == "rumqttd" else find_mosquitto() or pytest.skip("mosquitto")
    parent, pid = await parent_of(kind, data / "broker")
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(pid))


async def test_there_are_never_two(data):
    """One that hangs after its parent died is ended before the next begins; the lock tells."""
    find_mosquitto() or pytest.skip("mosquitto is not installed")
    folder = data / "mosquitto"
    parent, pid = await parent_of("mosquitto", folder)
    os.kill(pid, signal.SIGSTOP)  # it does not see the signal that its parent's death sends
    parent.kill()
    await parent.wait()
    assert alive(pid)
    running = managed_mosquitto(folder, limits=Limits(), run_as=somebody())
    await running.start()
    assert not alive(pid)
    assert running.reachable
    await running.stop()


@pytest.mark.skipif(not IS_ROOT, reason="the broker has our own rights then: there is nobody whom it may not end")
async def test_who_holds_the_lock_cannot_have_another_process_ended(data):
    """The file is the broker's own: a broken one writes into it what it likes, and we start the next."""
    user = somebody()
    folder = data / "mosquitto"
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    make_private(folder, user)
    write_private(folder / "lock", f"{victim.pid}\n", user)
    hold = "import fcntl, os; f = open('lock'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", hold], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    await asyncio.to_thread(holder.stdout.readline)
    running = managed_mosquitto(folder, limits=Limits(), run_as=user)
    with pytest.raises(BrokerNotStarted):
        await running.start()
    assert victim.poll() is None
    for process in (victim, holder):
        process.communicate(b"\n")


def test_the_configuration_is_no_narrower_than_the_gate_and_shows_nothing():
    """Its packet limit lets through what the gate does; no port, no bridge, no `$SYS`, no files of others."""
    lines = dict(line.split(" ", 1) for line in configuration(Limits(max_packet_bytes=5000)).splitlines()[1:])
    assert int(lines["max_packet_size"]) > 5000
    assert lines["listener"] == "0 mosquitto.sock"
    assert lines["sys_interval"] == "0"
    assert lines["persistence_location"] == "./"
    assert lines["retain_available"] == "true"
    assert int(lines["max_queued_bytes"]) > 0 < int(lines["max_queued_messages"]), "0 is without bound"
    assert not {"bind_address", "port", "connection", "include_dir", "plugin", "user"} & set(lines)


async def test_large_packets_and_many_queued_ones_pass(upstream):
    """What the gate lets through, Mosquitto takes."""
    link, owner = await connected(upstream)
    await subscribe(link, owner, ("big", 1))
    payload = b"p" * (Limits().max_packet_bytes - 20)
    link.write(wire.encode_publish("big", payload, qos=1, packet_id=1))
    assert (await owner.published())[0].payload == payload


# --- what cannot be started says why ---------------------------------------------------------------------------------


def test_a_missing_executable_is_named(monkeypatch, tmp_path):
    """With the package to install."""
    monkeypatch.setattr(mosquitto, "SEARCHED", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerNotStarted, match="apt-get install mosquitto"):
        managed_mosquitto(tmp_path / "m", limits=Limits())


def test_a_path_that_no_socket_can_have_is_named(tmp_path):
    """A Unix socket's path has 107 bytes at most."""
    find_mosquitto() or pytest.skip("mosquitto is not installed")
    with pytest.raises(BrokerNotStarted, match="shorter data directory"):
        managed_mosquitto(tmp_path / ("d" * 100), limits=Limits())
    letters = (107 - len(str(tmp_path)) - len("//mosquitto.sock")) // 2
    managed_mosquitto(tmp_path / ("ü" * letters), limits=Limits())
    with pytest.raises(BrokerNotStarted, match="shorter data directory"):
        managed_mosquitto(tmp_path / ("ü" * (letters + 1)), limits=Limits())


def test_the_gate_connects_as_soon_as_the_child_serves():
    """Its back-off may have grown meanwhile."""
    upstream = ManagedUpstream()
    tried = []
    upstream._service.try_again = lambda: tried.append(True)
    upstream.came_or_went(False)
    assert tried == []
    upstream.came_or_went(True)
    assert tried == [True]


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "not run as root"), ("root", "which is root"), ("no-such-user", "no user of this machine")],
)
def test_as_root_a_user_must_be_named(monkeypatch, name, said):
    """And not root, under whatever name."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(BrokerNotStarted, match=said):
        user_to_run_as(name)


def test_who_is_not_root_cannot_become_another(monkeypatch):
    """His own name is fine."""
    monkeypatch.setattr(os, "geteuid", lambda: 1)  # `daemon`, wherever there is one
    with pytest.raises(BrokerNotStarted, match="only root"):
        user_to_run_as("nobody")
    assert user_to_run_as("") == RunAs()


def child(folder: Path, *command: str, **more) -> Child:
    async def never(_pid: int) -> bool:
        return False

    options = {"prepare": lambda: command, "is_ready": never, "run_as": RunAs(), **more}
    return Child("something", folder=folder, **options)


async def test_a_child_that_ends_at_once_is_an_error_with_its_words(tmp_path):
    """Status and the last lines; nothing is restarted."""
    running = child(tmp_path / "c", "/bin/sh", "-c", "echo cannot bind; exit 3")
    with pytest.raises(BrokerNotStarted, match=r"status 3: cannot bind"):
        await running.start()
    assert running.pid is None


async def test_a_child_that_never_serves_is_ended(tmp_path, monkeypatch):
    """After a while, with what it said."""
    monkeypatch.setattr("broker.managed.child.READY_WITHIN_S", 0.5)
    running = child(tmp_path / "c", "/bin/sh", "-c", "echo waiting; exec sleep 60")
    with pytest.raises(BrokerNotStarted, match="does not serve after .*waiting"):
        await running.start()
    assert running.pid is None


async def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    """A file in its place, or a link to somewhere else."""
    (tmp_path / "c").write_text("")
    with pytest.raises(BrokerNotStarted, match="cannot use"):
        await child(tmp_path / "c", "/bin/true").start()
    (tmp_path / "l").symlink_to(tmp_path)
    with pytest.raises(BrokerNotStarted, match="cannot use"):
        await child(tmp_path / "l", "/bin/true").start()


async def test_who_talks_too_much_is_cut_short_in_our_log(tmp_path, capsys):
    """Lines and bytes of a child's output are bounded; the child is not blocked by it."""
    ready = asyncio.Event()

    async def is_ready(_pid: int) -> bool:
        return ready.is_set()

    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; touch done; exec sleep 60"
    running = child(tmp_path / "c", "/bin/sh", "-c", script, is_ready=is_ready)
    starting = asyncio.create_task(running.start())
    await until((tmp_path / "c" / "done").exists)
    ready.set()
    await starting
    await running.stop()
    printed = capsys.readouterr().out.count("managed_broker_says")
    assert 0 < printed < 300
