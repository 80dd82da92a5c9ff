"""The npm package by itself: its own tests, and what is published of it."""

from __future__ import annotations

import json
import subprocess

from tests.adapters.aedes_broker import PACKAGE, PROGRAM, installed, node


def test_the_packages_own_tests_pass() -> None:
    """Node's test runner, against a real Aedes and a service that answers nonsense."""
    tests = sorted(map(str, (PACKAGE / "test").glob("*.test.js")))
    done = subprocess.run(
        [installed(), "--test", *tests], cwd=PACKAGE, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_file_that_the_package_names_is_there() -> None:
    """A file that is missing from `files` would be missing for whoever installs it."""
    package = json.loads((PACKAGE / "package.json").read_text())
    named = [package["main"], package["types"], *package["bin"].values(), *package["files"]]
    named += [path for export in package["exports"].values() for path in export.values()]
    assert [path for path in named if not (PACKAGE / path).exists()] == []
    assert "dependencies" not in package


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs decides where from."""
    lock = json.loads((PACKAGE / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert lock["packages"]["node_modules/aedes"]["version"].startswith("1.")


def test_the_program_says_how_it_is_used() -> None:
    """Help is no mistake; a missing address of the service is one."""
    called = [
        subprocess.run([installed(), PROGRAM, *arguments], capture_output=True, text=True, check=False)
        for arguments in (["--help"], [], ["--nonsense"])
    ]
    assert [done.returncode for done in called] == [0, 2, 2]
    assert "authsvc-aedes --port 1883 --authsvc http://127.0.0.1:8080" in called[0].stdout
    assert "--authsvc is missing" in called[1].stderr


def test_every_source_is_valid_by_itself() -> None:
    """What no test imports is at least parsed."""
    for source in (*PACKAGE.glob("*.js"), *PACKAGE.glob("lib/*.js"), *PACKAGE.glob("bin/*.js")):
        done = subprocess.run([node(), "--check", source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
