"""Documents: every link and anchor resolves, every page is linked, the README is short."""

import os.path
import pkgutil
import re
from pathlib import Path

import pytest
from places import ROOT

PAGES = sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))
TOP = [Path(name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = [*TOP, Path("examples/README.md"), *PAGES]


def prose(path):
    """A document without its code."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / path).read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[][()#]", "", code[0]), text)


def anchors(path):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def links(path):
    """Where a document's relative links and pictures lead: a path in the repository, an anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not re.match(r"https?://", target):
            file, _, anchor = target.partition("#")
            place = os.path.normpath(path.parent / file) if file else str(path)
            yield Path(place), anchor


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_links_and_anchors_resolve(path):
    for place, anchor in links(path):
        assert (ROOT / place).exists(), place
        assert not anchor or anchors(place).count(anchor) == 1, (place, anchor)


def test_a_wrong_link_would_be_seen(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    here, there = Path("here.md"), Path("there.md")
    (tmp_path / there).write_text("# What λ is: `k^(1-λ)`, and *why*\n\n```sh\n# not this\n```\n")
    for link in ("there.md", "there.md#what-λ-is-k1-λ-and-why", "https://example.org/no"):
        (tmp_path / here).write_text(f"# Here\n[x]({link}), [x](#here), `[x](not this)`")
        test_links_and_anchors_resolve(here)
    for link in ("no.md", "there.md#not-this", "#there", "docs/there.md"):
        (tmp_path / here).write_text(f"# Here\n![x]({link})")
        with pytest.raises(AssertionError):
            test_links_and_anchors_resolve(here)


# CONTRIBUTING names the adapters.
TRAINERS = pytest.mark.needs("trl", "transformers", "lightning")


@pytest.mark.parametrize("path", [TOP[0], pytest.param(TOP[1], marks=TRAINERS), *PAGES], ids=str)
def test_names_of_the_package_are_those_of_the_code(path):
    text = re.sub(r"^```.*?^```$", "", (ROOT / path).read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`(passk_guard(?:\.\w+)+)", text):
        if not name.endswith((".jsonl", ".pt")):  # files
            assert pkgutil.resolve_name(name) is not None


def test_every_page_is_linked_from_the_readme_and_stands_in_the_built_contents():
    linked = {place for place, _ in links(TOP[0])}
    contents = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        if page.stem != "index":
            assert f"\n{page.stem}\n" in contents
            included = re.match(r"```{include} (\S+)\n", (ROOT / page).read_text())
            place = Path(os.path.normpath(page.parent / included[1])) if included else page
            assert place in linked, place


def test_the_documents_are_short():
    pages = [TOP[0], *PAGES]
    assert sum(len((ROOT / page).read_text().split()) for page in pages) <= 9000
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 135
    # Tables apart, no line is a paragraph.
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
