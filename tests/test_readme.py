import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_are_those_of_the_results():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "experiments" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "README.md").read_text()
    assert module.filled(text) == text, "run `make readme`"
    assert text.count("<!-- end -->") == 4
