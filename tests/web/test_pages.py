"""Cursors hold what was sealed and nothing else."""

import pytest

from authsvc.web.pages import seal, unseal
from authsvc.web.problems import Problem

PATH = "/v1/tenants/acme/things"


def test_a_cursor_opens_for_the_list_and_filters_that_made_it():
    """What was sealed comes back; filters that are not set count as none."""
    cursor = seal("gw-1", path=PATH, filters={"q": "x", "ground": None})
    assert unseal(cursor, path=PATH, filters={"q": "x"}) == "gw-1"
    assert seal(None, path=PATH, filters={}) is None
    assert unseal(None, path=PATH, filters={}) is None


@pytest.mark.parametrize(
    ("path", "filters"),
    [
        pytest.param("/v1/tenants/umbrella/things", {"q": "x"}, id="another tenant"),
        pytest.param("/v1/tenants/acme/grounds", {"q": "x"}, id="another list"),
        pytest.param(PATH, {"q": "y"}, id="another filter"),
        pytest.param(PATH, {}, id="no filter"),
    ],
)
def test_a_cursor_of_another_list_is_refused(path, filters):
    """A cursor belongs to one path and one set of filters."""
    cursor = seal("gw-1", path=PATH, filters={"q": "x"})
    with pytest.raises(Problem) as caught:
        unseal(cursor, path=path, filters=filters)
    assert (caught.value.status_code, caught.value.code) == (422, "cursor_invalid")


def test_every_changed_character_of_a_cursor_is_noticed():
    """No edit of one character, cut or addition gives a page, also none that decodes to the same bytes."""
    cursor = seal("gw-1", path=PATH, filters={})
    assert cursor is not None
    alphabet = "ABab01-_"
    forged = {cursor[:-1], cursor[1:], cursor + "A", cursor + "=", "", "A", "é", "\ud800", " " + cursor}
    for place, letter in enumerate(cursor):
        forged |= {cursor[:place] + other + cursor[place + 1 :] for other in alphabet if other != letter}
    for text in forged:
        with pytest.raises(Problem):
            unseal(text, path=PATH, filters={})
