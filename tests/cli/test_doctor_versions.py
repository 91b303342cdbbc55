"""What ``passk-guard doctor`` says of releases."""

from importlib import metadata

import pytest
from packaging.specifiers import SpecifierSet
from places import ROOT

from passk_guard.cli.versions import mark, own_ranges, packages

METADATA = [
    "torch>=2.4",
    "numpy>=1.26",
    'transformers<6,>=4.56.2; extra == "transformers"',
    'trl<2,>=0.22.2; extra == "trl"',
    'transformers<6,>=4.56.2; extra == "trl"',
    "matplotlib>=3.8; extra == 'tensorboard'",
    'passk-guard[transformers,trl]; extra == "all"',
    'peft>=0.13; extra == "dev"',
]


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these releases, and no others, are installed beside passk-guard's metadata."""

    def pretend(**releases):
        def version(name):
            if name not in releases:
                raise metadata.PackageNotFoundError(name)
            return releases[name]

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "requires", lambda name: METADATA)
        monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": ">=3.11"})
        return {package.name: package for package in packages()}

    return pretend


def test_releases_are_marked_by_the_packages_own_metadata(installed):
    found = installed(torch="2.13.0+cpu", numpy="1.25.2", transformers="6.0", trl="0.22.2")
    marks = {name: package.mark for name, package in found.items()}
    assert marks == {
        **dict.fromkeys(("passk-guard", "Python", "torch", "trl"), "ok"),
        "numpy": "too old",
        "transformers": "too new",
        **dict.fromkeys(("accelerate", "lightning", "peft"), "not installed"),
        **dict.fromkeys(("tensorboard", "matplotlib", "rich"), "not installed"),
    }
    assert found["transformers"].supported == ">=4.56.2,<6"


def test_what_is_missing_comes_with_the_extra_that_brings_it(installed):
    found = installed(torch="2.13", numpy="2.0")
    assert found["trl"].mend == "pip install 'passk-guard[trl]'"
    assert found["transformers"].mend == "pip install 'passk-guard[transformers]'"
    assert found["matplotlib"].mend == "pip install 'passk-guard[tensorboard]'"
    assert found["peft"].mend == "pip install peft"  # in no extra that is for users
    assert found["torch"].mend is None


def test_pytorch_lightning_has_lightnings_range_and_is_shown_where_it_is_installed(
    installed, monkeypatch
):
    monkeypatch.setitem(globals(), "METADATA", [*METADATA, 'lightning>=2.4; extra == "lightning"'])
    assert "pytorch-lightning" not in installed()
    found = installed(**{"pytorch-lightning": "2.3.1"})
    assert found["pytorch-lightning"].mark == "too old"
    assert "lightning" not in found


@pytest.mark.parametrize("name", ["torch", "numpy", "transformers", "trl", "lightning"])
def test_the_ranges_are_those_of_pyproject(name):
    ranges = own_ranges()
    assert ranges is not None, "install the package, as make test does: pip install -e '.[dev]'"
    assert f'"{name}{ranges[name][0]}"' in (ROOT / "pyproject.toml").read_text()


RELEASES = ["0.9", "1.9.9", "2", "2.0", "2.0.0.post1", "2.0.1", "2.0.1+cpu", "2.10", "3.0", "10.0"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("range_", [">=2.0.1", "<2.10", ">=1.26", ">=2,<3", ">=0.22.2,<2"])
def test_marks_agree_with_packaging(release, range_):
    allowed = SpecifierSet(range_).contains(release, prereleases=True)
    assert (mark(release, range_) == "ok") == allowed


@pytest.mark.parametrize(("release", "range_"), [("git", ">=2"), ("2.0", "~=2.0"), ("2", "==2")])
def test_what_cannot_be_compared_is_unknown(release, range_):
    assert mark(release, range_) == "unknown"
