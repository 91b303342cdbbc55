"""A trainer that has changed under the guard is refused as it is attached, by name and release."""

from importlib.metadata import version

import pytest

from passk_guard.integrations._needs import Need, check_needs


class Inner:
    def call(self, one, two=None):
        """Takes one or two."""


class Trainer:
    inner = Inner()
    value = None


@pytest.mark.parametrize(
    "need",
    [
        Need("value", None, ""),
        Need("inner.call", 1, ""),
        Need("inner.call", 2, ""),
        Need("inner.call", None, ""),
    ],
)
def test_what_is_there_passes(need):
    check_needs(Trainer(), [need], "torch", ">=2.4")


@pytest.mark.parametrize(
    ("need", "problem"),
    [
        (Need("gone", None, "look"), "Trainer.gone is missing in torch"),
        (Need("inner.gone", 1, "look"), "Trainer.inner.gone is missing in torch"),
        (Need("inner.call", 0, "look"), r"call does not take 0 argument\(s\)"),
        (Need("inner.call", 3, "look"), r"call does not take 3 argument\(s\)"),
    ],
)
def test_what_is_not_is_named_with_the_release(need, problem):
    with pytest.raises(RuntimeError, match=problem) as caught:
        check_needs(Trainer(), [need], "torch", ">=2.4")
    said = str(caught.value)
    assert version("torch") in said
    assert "needs it to look" in said
    assert "(>=2.4)" in said
