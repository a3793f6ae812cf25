"""The pages of the documentation: their examples run, and their links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples(page: Path) -> str:
    return "\n".join(re.findall(r"```pycon\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=name)
def test_examples_do_what_they_say(page):
    session = doctest.DocTestParser().get_doctest(examples(page), {}, name(page), str(page), 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(session, out=said.append)
    assert not said, "".join(said)


def anchors(page: Path) -> set[str]:
    """Of its headings, by the rule of GitHub, which is that of the site for these."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            to = page.parent / file if file else page
            assert to.is_file(), link
            assert not anchor or anchor in anchors(to), link


def test_the_reference_has_every_module():
    text = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    modules = {
        ".".join(file.relative_to(room).with_suffix("").parts)
        for room in (ROOT / "src", ROOT / "kernels")
        for file in room.rglob("*.py")
        if not file.name.startswith("__")
    }
    assert modules <= set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def test_the_readme_leads_to_every_page():
    readme, index = (ROOT / "README.md").read_text(), (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        if page.name != "index.md":
            assert f"(docs/{page.name})" in readme
            assert f"({page.name})" in index
