"""The core decides and does nothing else: what it may import and use, and what is shown for its reasons and errors."""

import ast
import sys
from pathlib import Path

import pytest

import authsvc.core
from authsvc.core import errors
from authsvc.core.facts import KeySet, Role
from authsvc.core.reasons import GUESSES, Reason, connack_code

FILES = sorted(Path(authsvc.core.__file__).parent.glob("**/*.py"))

# Standard library, but a clock, a log, I/O, a thread, a process, or a way around this list.
FORBIDDEN = set(
    """asyncio builtins concurrent ctypes datetime importlib inspect io logging multiprocessing os pathlib pickle random
    sched select selectors shutil signal socket sqlite3 ssl subprocess sys tempfile threading time urllib uuid warnings
    weakref zoneinfo""".split()
)
FORBIDDEN_NAMES = {"open", "print", "input", "eval", "exec", "__import__", "globals", "breakpoint"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_core_imports_only_the_standard_library_without_its_clocks_and_itself(path):
    """No package, no other part of the service, nothing that waits, logs, reads or tells the time."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if name == "authsvc.core" or name.startswith("authsvc.core."):
                continue
            assert top in sys.stdlib_module_names, f"{path.name} imports {name}"
            assert top not in FORBIDDEN, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_core_is_synchronous_and_does_no_input_or_output(path):
    """No coroutine, no global state, no built-in that reads or writes."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)), path.name
        assert not isinstance(node, (ast.Global, ast.Nonlocal)), path.name
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"{path.name} uses {node.id}"


def test_the_contract_looks_at_every_module():
    """A rule that checks no file would hold for ever."""
    assert {"topics.py", "policy.py", "grants.py", "index.py", "tokens.py", "credentials.py", "things.py"} <= {
        path.name for path in FILES
    }


REFUSED = """thing_unknown thing_blocked thing_key_invalid client_id_mismatch client_id_taken definition_missing
    license_exhausted quota_exhausted will_denied tenant_suspended session_limit thing_retired thing_out_of_scope"""


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (0, "accepted"),
        (2, "client_id_invalid"),
        (3, "store_unavailable broker_unavailable rate_limited connection_limit"),
        (4, "malformed_credential unknown_token token_expired token_revoked thing_key_mismatch"),
        (5, REFUSED),
    ],
)
def test_the_connack_code_of_a_reason_is_the_published_one(code, names):
    """The client learns the class of the refusal, never which of unknown, expired and revoked it was."""
    assert {connack_code(Reason(name)) for name in names.split()} == {code}


def test_only_failing_credentials_count_as_guesses():
    """A valid credential that is refused for another reason is never throttled."""
    expected = "malformed_credential unknown_token token_expired token_revoked"
    assert {reason.value for reason in GUESSES} == set(expected.split())


def test_a_key_set_counts_every_change_and_only_changes():
    """The version is what memoised decisions are compared with."""
    keys = KeySet({"a"})
    for change, version, content in [
        (lambda: keys.add("a"), 0, {"a"}),
        (lambda: keys.add("b"), 1, {"a", "b"}),
        (lambda: keys.discard("x"), 1, {"a", "b"}),
        (lambda: keys.discard("a"), 2, {"b"}),
        (lambda: keys.replace(frozenset({"b"})), 2, {"b"}),
        (lambda: keys.replace({"c", "d"}), 3, {"c", "d"}),
    ]:
        change()
        assert (keys.version, keys.keys, len(keys)) == (version, content, len(content))
    assert "c" in keys
    assert "b" not in keys


def test_a_role_without_a_tenant_is_a_platform_role():
    """Only those may leave the wall."""
    assert Role(tenant="", key="r", name="r").platform
    assert not Role(tenant="acme", key="r", name="r").platform


def test_errors_carry_what_an_answer_needs():
    """Stable codes, the place, the counts; a message in the words of the caller."""
    invalid = errors.InvalidInput("topic_invalid", "no", field="rules.0.topic")
    assert (invalid.code, invalid.detail, invalid.field, str(invalid)) == ("topic_invalid", "no", "rules.0.topic", "no")
    missing = errors.NotFound("thing", "gw-1")
    assert (missing.code, missing.kind, missing.key, str(missing)) == ("not_found", "thing", "gw-1", "no thing `gw-1`")
    used = errors.InUse("used", {"things": 2})
    assert (used.code, used.detail, used.counts) == ("in_use", "used", {"things": 2})
    assert isinstance(used, errors.Conflict)
    assert issubclass(errors.StoreReadOnly, errors.StoreUnavailable)
