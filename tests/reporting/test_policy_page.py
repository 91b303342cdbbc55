"""A reading of a policy as a page and a figure: whole, valid, and made from its record alone."""

from extras import needs

needs("matplotlib", "html5lib")

import json
import re

import html5lib
import numpy as np
import pytest
from nulls import CONTROLS
from test_policy_record import reading

from passk_guard.reporting.policy_page import policy_figure, policy_page
from passk_guard.reporting.policy_record import policy_record, policy_sentence

HOSTILE = ["<script>alert(1)</script>", "| a | b |", "\u202eright to left", "zero\x00 {{ x }}"]


def record(found, rows=None, **more):
    whole = {
        "name": "<b>model</b>",
        "sentence": policy_sentence(found),
        **policy_record(found, rows),
        "settings": {"k": found.k, "group_by": "kind"},
        "remarks": ["<i>said</i>"],
        "looks": [64],
        "gradients": "",
        "seconds": {"sampling": 1.0, "gradients": 2.0},
        "journal": None,
        **more,
    }
    return json.loads(json.dumps(whole, allow_nan=False))  # as the journal keeps it


def text_of(html):
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    return tree, " ".join("".join(tree.find("body").itertext()).split())


def test_the_page_has_every_figure():
    found = reading(labels=["even", "odd"] * 64)
    tree, text = text_of(policy_page(record(found)))
    assert policy_sentence(found) in text
    for one in found.pass_at:
        assert f"{one.low:.3f} to {one.high:.3f}" in text
    assert "even" in text
    assert len(list(tree.iter("figure"))) == 4
    images = [image.get("alt") for image in tree.iter("img")]
    assert all(images)
    assert "<b>model</b>" in text  # as text
    assert "<i>said</i>" in text


def test_prompts_are_shown_as_text_or_not_at_all():
    found = reading()
    rows = [{"prompt": HOSTILE[i % len(HOSTILE)]} for i in range(128)]
    tree, _ = text_of(policy_page(record(found, rows)))
    assert len(list(tree.iter("script"))) == 3  # its own, and two of data
    quoted = ["".join(one.itertext()) for one in tree.iter("bdi")]
    assert any("<script>" in one for one in quoted)
    plain = policy_page(record(found))
    assert not re.search("alert|right to left", plain)
    assert "by their row" in plain


@pytest.mark.parametrize("kind", ["no signal", "few prompts", "nil"])
def test_a_page_without_pictures_is_whole(kind):
    settings = {"no signal": {"right": 0}, "few prompts": {"m": 8}, "nil": {"right": 7}}[kind]
    found = reading(**settings)
    _, text = text_of(policy_page(record(found)))
    assert policy_sentence(found) in text
    assert policy_figure(record(found)).axes


def test_a_large_heat_map_is_thinned():
    found = reading(m=400)
    kept = policy_record(found)["picture"]
    assert len(kept["rows"]) == 160
    assert np.all(np.diff(kept["pass_rates"]) >= 0)
    assert CONTROLS  # the gradients come from one of them
