"""Documentation pages: examples, links and completeness."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def relative_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples(page: Path) -> str:
    """Return the pycon examples of a page."""
    return "\n".join(re.findall(r"```pycon\n(.*?)```", page.read_text(), re.DOTALL))


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=relative_path)
def test_examples_run(page):
    test = doctest.DocTestParser().get_doctest(examples(page), {}, relative_path(page), str(page), 0)
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=failures.append)
    assert not failures, "".join(failures)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the documentation site generate them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative_path)
def test_links_are_valid(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


def test_reference_lists_every_module():
    text = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    modules = {
        ".".join(file.relative_to(folder).with_suffix("").parts)
        for folder in (ROOT / "src", ROOT / "kernels")
        for file in folder.rglob("*.py")
        if not file.name.startswith("__")
    }
    assert modules <= set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def test_readme_and_index_link_every_page():
    readme, index = (ROOT / "README.md").read_text(), (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        if page.name != "index.md":
            assert f"(docs/{page.name})" in readme
            assert f"({page.name})" in index
