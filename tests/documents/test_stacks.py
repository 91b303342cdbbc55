"""What runs where: the page's table is the doctor's, and each row has tests that hold it."""

import re

import pytest
from places import ROOT

from passk_guard.cli.stacks import STACKS, markdown


def test_the_page_has_the_table():
    assert "\n".join(markdown()) in (ROOT / "docs" / "production.md").read_text()


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.what)
def test_a_row_names_tests_that_there_are(stack):
    assert stack.shown
    for place in stack.shown:
        file, _, name = place.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), place
