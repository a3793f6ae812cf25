"""Do the tests notice a changed constant, condition or statement? Run them on a sample of mutants, each with one change.

    make experiment EXP=mutants                       # an interrupted run continues
    make experiment EXP=mutants ARGS=--survivors      # run those again that survived, after adding tests

Mutants are made in a copy of the repository in runs/mutants/. They change numbers, truth values, names of modes and layers,
comparisons, arithmetic, `and` and `or`, conditions and branches, or leave out a keyword argument or a statement. Annotations,
docstrings, f-strings and the texts of exceptions are not changed: the tests compare only parts of messages.

In experiments/results/mutants.json, the reason why a mutant survives is written by hand and kept by later runs. It begins with
"equivalent" if the mutant behaves as the original, which is then not run again.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.files import write_json

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/alexnet_jax")
WORK, RESULT = ROOT / "runs" / "mutants", ROOT / "experiments" / "results" / "mutants.json"
SAMPLE, SEED, TIMEOUT = 200, 2012, 400

LIBRARIES = ["beartype", "flax.linen", "grain", "matplotlib.figure", "optax", "orbax.checkpoint", "pytest", "scipy.stats", "tyro"]
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
# Tests of the files whose paths begin so; the first match counts. Those after the bar take longer and run after all others.
# Tests of tables need no fixtures: without tests/conftest.py they start in half the time.
NETWORKS = "--noconftest model/test_published_networks.py | model/test_layers.py model/test_network.py"
STEP = "data/pipeline/test_augment.py training/test_numpy_step.py training/test_step.py | "
STEP += "training/test_loop.py parallel/test_placement.py"
TESTS = {
    **dict.fromkeys(("model/alexnet.py", "model/catalog.py", "model/cifar.py", "model/relatives.py"), NETWORKS),
    "model/ablations.py": "model/test_ablations.py |",
    "model/comparison_layers.py": "model/test_published_networks.py model/test_layers.py | model/test_ablations.py",
    "model/convolution.py": "model/test_convolution.py model/test_lowering.py |",
    "model/lowering.py": "model/test_lowering.py model/test_network.py | parallel/test_placement.py training/test_step.py",
    "model/summary.py": "model/test_network.py training/test_variants.py | training/test_settings.py parallel/test_placement.py "
    "training/test_train.py",
    "model/": "model/test_published_networks.py model/test_layers.py model/test_own_layers.py | model/test_network.py "
    "model/test_ablations.py parallel/test_placement.py training/test_step.py weights/test_caffe_layers.py test_fuzz.py",
    "training/config.py": "test_published_settings.py training/test_schedule.py training/test_settings.py | "
    "training/test_open_run.py training/test_train.py",
    "training/optimizer.py": "training/test_optimizer.py | training/test_numpy_step.py training/test_step.py",
    "training/schedule.py": "test_published_settings.py training/test_schedule.py training/test_settings.py | "
    "training/test_loop.py",
    **dict.fromkeys(("training/evaluation_step.py", "training/normalization.py", "training/step.py"), STEP),
    "data/pipeline/copy_crop.py": "data/pipeline/test_copy_crop.py | data/pipeline/test_batches.py",
    "data/pipeline/augment.py": "test_published_settings.py data/pipeline/test_augment.py | data/pipeline/test_batches.py",
    "data/pipeline/transforms.py": "data/pipeline/test_augment.py training/test_settings.py | data/pipeline/test_batches.py",
    "evaluation/": "evaluation data/pipeline/test_augment.py | cli/test_evaluate.py cli/test_evaluate_errors.py "
    "weights/test_trained_model.py test_api.py",
    "configs/": "--noconftest test_published_settings.py | training/test_schedule.py cli/test_help.py",
}  # fmt: skip

OPERATORS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
TYPES = re.compile(
    r"(Any|Array|Bool|Callable|ClassVar|Float|Int|Iterator|Literal|Mapping|Sequence|Shaped|UInt8)\b|(dict|list|set|tuple|type)\["
)


class Mutant(NamedTuple):
    """Change of one file of the package at a byte offset."""

    file: str
    line: int
    offset: int
    operator: str
    original: str
    mutated: str


def mutations(node: ast.AST, parent: ast.AST, modes: dict[str, str]) -> Iterator[tuple[ast.AST, str, str]]:
    """Yield (node to replace, kind of change, new text) for the changes at a node; `modes` maps each mode to another."""

    def with_operator(field: str, operator: type) -> str:
        fields = dict(ast.iter_fields(node)) | {field: [OPERATORS[operator]()] if field == "ops" else OPERATORS[operator]()}
        return f"({ast.unparse(type(node)(**fields))})"

    match node:
        case ast.Constant(value=bool(value)):
            yield node, "truth value", str(not value)
        case ast.Constant(value=int(value)):
            yield node, "number", str(value + 1)
        case ast.Constant(value=float(value)):
            yield node, "number", repr(2 * value or 1.0)
        case ast.Constant(value=str(value)) if value in modes:
            yield node, "mode", repr(modes[value])
        case ast.Constant(value=str(value)) if layer := re.fullmatch(r"([a-z]+)(\d)", value):
            yield node, "mode", repr(f"{layer[1]}{int(layer[2]) + 1}")
        case ast.Compare(ops=[operator]):
            yield node, "comparison", with_operator("ops", type(operator))
        case ast.BinOp(op=operator):
            yield node, "arithmetic", with_operator("op", type(operator))
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield node, "arithmetic", f"({ast.unparse(operand)})"
        case ast.BoolOp(op=operator):
            yield node, "and, or", with_operator("op", type(operator))
        case ast.If(test=test) | ast.While(test=test) | ast.comprehension(ifs=[test]):
            yield test, "condition", f"(not ({ast.unparse(test)}))"
        case ast.IfExp(body=body, orelse=orelse):
            yield node, "branch", f"({ast.unparse(body)})"
            yield node, "branch", f"({ast.unparse(orelse)})"
        case ast.keyword(arg=str()) if isinstance(parent, ast.Call):
            yield node, "keyword", ""
        case ast.AugAssign() | ast.Continue() | ast.Break() | ast.Raise() | ast.Expr(value=ast.Call()):
            yield node, "statement", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "statement", "pass"
        case ast.Return() if isinstance(parent, ast.If | ast.For):
            yield node, "statement", "pass"


def mutants(file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file of the package."""
    text = (ROOT / PACKAGE / file).read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    modes: dict[str, str] = {}  # the values of a Literal follow one another; those of this file come first
    for values in re.findall(r"Literal\[([^\]]*)\]", "".join(path.read_text() for path in [ROOT / PACKAGE / file, *MODULES])):
        names = re.findall(r'"(\w+)"', values)
        modes = dict(zip(names, names[1:] + names[:1], strict=True)) | modes

    def visit(node: ast.AST, parent: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
        yield from mutations(node, parent, modes)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                untouched = isinstance(node, ast.Raise) or field in ("annotation", "returns") or isinstance(child, ast.JoinedStr)
                if isinstance(child, ast.AST) and not untouched and not TYPES.match(ast.unparse(child)):
                    yield from visit(child, node)

    tree = ast.parse(text)
    for node, operator, mutated in visit(tree, tree):
        position: Any = node
        start = starts[position.lineno - 1] + position.col_offset
        end = starts[position.end_lineno - 1] + position.end_col_offset
        if operator == "keyword":  # with the comma after it, or else before it
            after, before = re.match(rb"\s*,[^\S\n]*", text[end:]), re.search(rb",\s*$", text[:start])
            start, end = (start, end + after.end()) if after else (before.start() if before else start, end)
        yield Mutant(file, position.lineno, start, operator, text[start:end].decode(), mutated)


def prepare_copy() -> None:
    """Copy the files that tests read to the work folder, and import the libraries, which all processes of tests then share."""
    for name in ("src", "kernels", "tests", "experiments", "docs"):
        shutil.rmtree(WORK / "copy" / name, ignore_errors=True)
        shutil.copytree(ROOT / name, WORK / "copy" / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, WORK / "copy" / name)
    os.chdir(WORK / "copy")
    sys.path[:0] = [str(WORK / "copy"), *(str(WORK / "copy" / name) for name in ("src", "kernels"))]
    # Tests import the copy, but modules of a package that is already imported would be looked up where it was found.
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE.name]:
        del sys.modules[name]
    assert Path(str(cast(ModuleSpec, find_spec(PACKAGE.name)).origin)).is_relative_to(WORK)
    # As in tests/conftest.py. Mutants share compiled programs, which JAX looks up by their content.
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(WORK / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    os.environ |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path[:3])}
    for name in LIBRARIES:
        import_module(name)


def failing_test(tests: str, timeout: float) -> str | None:
    """Run tests in a forked process; return the first one that fails, or None."""
    shutil.rmtree(".hypothesis", ignore_errors=True)  # examples that fail for other mutants
    log = WORK / "log.txt"
    child = os.fork()
    if child == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        import pytest

        options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow", "--tb=line", "--hypothesis-seed=0"]
        status = pytest.main([*options, *tests.split()])
        sys.stdout.flush()
        os._exit(status)
    end = time.monotonic() + timeout
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.05)
    status = os.waitstatus_to_exitcode(ended[1])
    if status == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", log.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else f"exit status {status}"


def mutated_text(mutant: Mutant, text: bytes) -> bytes:
    """Return the text of a mutated file."""
    end = mutant.offset + len(mutant.original.encode())
    return text[: mutant.offset] + mutant.mutated.encode() + text[end:]


def run(mutant: Mutant, number: int, tests: str) -> str | None:
    """Return the first test that fails for a mutant, or None."""
    path = WORK / "copy" / PACKAGE / mutant.file
    text, times = path.read_bytes(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_bytes(mutated_text(mutant, text))
    os.utime(path, (times[0], 1e9 + number))  # Python recognizes stale bytecode by the time, in seconds, and the size
    try:
        return failing_test(tests, TIMEOUT)
    finally:
        path.write_bytes(text)
        os.utime(path, times)


def stored_reasons() -> dict[Mutant, str]:
    """Return the reasons in the existing result why mutants survive."""
    rows = json.loads(RESULT.read_text())["survivors"] if RESULT.exists() else []
    return {Mutant(**{name: row[name] for name in Mutant._fields}): row["reason"] for row in rows}


def write_result(sample: list[Mutant], killed: set[Mutant], reasons: dict[Mutant, str]) -> None:
    """Write the counts, and the survivors with their reasons."""
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for mutant in sample:
        reason = reasons.get(mutant, "")
        status = "killed" if mutant in killed else "equivalent" if reason.startswith("equivalent") else "survived"
        for group in ("total", f"operator: {mutant.operator}", f"file: {mutant.file}"):
            counts.setdefault(group, Counter(killed=0, equivalent=0, survived=0))[status] += 1
        if mutant not in killed:
            survivors.append({**mutant._asdict(), "reason": reason})
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = {"commit": commit, "seed": SEED, **{name: dict(counts[name]) for name in sorted(counts)}, "survivors": survivors}
    write_json(RESULT, result)
    print(result["total"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--survivors", action="store_true", help="run those again that survived, after adding tests")
    options = parser.parse_args()
    names = [path.relative_to(ROOT / PACKAGE).as_posix() for path in MODULES]
    population = [mutant for name in names if name.startswith(tuple(TESTS)) for mutant in mutants(name)]
    sample = random.Random(SEED).sample(population, SAMPLE)
    WORK.mkdir(parents=True, exist_ok=True)
    log = WORK / "mutants.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(record["mutant"], record["part"]): record["by"] for record in records if record["by"] or not options.survivors}
    reasons = stored_reasons()
    prepare_copy()
    for part, (number, mutant) in product((0, 1), enumerate(sample)):
        key = repr(mutant)
        if done.get((key, 0)) or (key, part) in done or reasons.get(mutant, "").startswith("equivalent"):
            continue
        tests = next(tests for start, tests in TESTS.items() if mutant.file.startswith(start)).split("|")[part]
        paths = [name if name.startswith("-") else f"tests/{name}" for name in tests.split()]
        start = time.monotonic()
        done[key, part] = by = run(mutant, number, " ".join(paths)) if paths else None
        record = {"mutant": key, "part": part, "by": by, "seconds": round(time.monotonic() - start, 1)}
        with log.open("a") as file:
            print(json.dumps(record), file=file)
        change = f"{mutant.file}:{mutant.line}: {mutant.original} -> {mutant.mutated}"
        print(f"{number + 1} of {SAMPLE}: {by or 'survived'}: {change}", flush=True)
    # A test that also fails without a mutant proves nothing; where the imports fail, all tests of the file count.
    if failed := failing_test(" ".join(sorted({by for by in done.values() if by and by.startswith("tests/")})), 10 * TIMEOUT):
        raise SystemExit(f"{failed} fails without a mutant: see {WORK / 'log.txt'}")
    write_result(sample, {mutant for mutant in sample if done.get((repr(mutant), 0)) or done.get((repr(mutant), 1))}, reasons)


if __name__ == "__main__":
    with exit_on_error():
        main()
