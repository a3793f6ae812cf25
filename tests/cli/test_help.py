"""Tests of the help of every command, and of output to a program that stops reading."""

import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from alexnet_jax.cli import main as cli
from alexnet_jax.cli.parsing import parse
from alexnet_jax.configs import config_names

PROGRAM = "import sys; from alexnet_jax.cli.main import main; main(); sys.exit('jax' in sys.modules)"


@pytest.mark.parametrize(
    "command", [[], *([name] for name in cli.COMMANDS), ["train", "two_tower"], ["data", "show"]], ids=" ".join
)
def test_every_command_has_help(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", *command, "--help"])
    code = 0
    try:
        cli.main()
    except SystemExit as exit_:
        code = exit_.code
    assert code == 0
    output = capsys.readouterr()
    assert output.out.startswith(" ".join(["usage: alexnet-jax", *command]))
    for placeholder in ("{None}", "[PATH", "options options"):
        assert placeholder not in output.out
    assert not output.err


def test_help_of_train_describes_the_configs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "train", "--help"])
    cli.main()
    output = capsys.readouterr().out
    for name in config_names():
        assert re.search(rf"^  {name} +\w.+ .+\.$", output, re.MULTILINE), name


def test_help_does_not_import_jax_and_ends_quietly_without_a_reader():
    assert subprocess.run([sys.executable, "-c", PROGRAM, "--help"], stdout=subprocess.DEVNULL).returncode == 0
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", PROGRAM, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, "")


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"alexnet-jax {version('alexnet-jax')}\n"


def test_optional_arguments_accept_values_and_none():
    def command(number: int | None = 3, names: tuple[str, ...] | None = None) -> tuple[int | None, tuple[str, ...] | None]:
        return number, names

    assert parse(command, "x", []) == (3, None)
    assert parse(command, "x", ["--number", "None", "--names", "a", "b"]) == (None, ("a", "b"))
    assert parse(command, "x", ["--number", "4", "--names", "None"]) == (4, None)


OUTPUT = """
import sys; from alexnet_jax.cli import main
main._run = lambda *_: print("a – ü 日 caf\\udce9")
main.main()
"""


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", b"a \\u2013 \\xfc \\u65e5 caf\xe9\n"), ("latin-1", b"a \\u2013 \xfc \\u65e5 caf\xe9\n"), ("utf-8", None)],
)
def test_output_in_every_encoding(encoding, expected):
    environment = dict(os.environ) | {"PYTHONIOENCODING": encoding}
    process = subprocess.run([sys.executable, "-c", OUTPUT], env=environment, capture_output=True, check=True)
    assert process.stdout == (expected or "a – ü 日 caf".encode() + b"\xe9\n")


STREAMS = """
import os, sys; from alexnet_jax.cli import main
def run(*_):
    file = open(sys.argv[1], "wb")
    assert file.fileno() > 2
    print("output")
    os.write(2, b"message of a library")
main._run = run
main.main()
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_not_replaced_by_files(closed, tmp_path):
    script = f'exec {" ".join(f"{number}>&-" for number in closed)}; exec "$0" -c "$1" "$2"'
    command = ["sh", "-c", script, sys.executable, STREAMS, str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("JAX_ENABLE_X64=maybe", "error: an environment variable has an invalid value .*'maybe'.*: correct or unset it\n"),
        ("MPLBACKEND=nothing", "error: .*run does not exist: .*\n"),
    ],
)
def test_environment_variables_of_libraries(variable, message, tmp_path):
    """An invalid value is an error in one line, unless the variable does not matter."""
    environment = dict(os.environ) | dict([variable.split("=")])
    command = [sys.executable, "-m", "alexnet_jax", "figures", str(tmp_path / "run")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert re.fullmatch(message, process.stderr), process.stderr


@pytest.mark.parametrize(("fresh", "advice"), [([], "to resume."), (["--fresh"], "to resume; with --fresh, it starts over.")])
def test_interrupted_training_says_how_to_resume(fresh, advice, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    monkeypatch.setattr(sys, "argv", ["alexnet-jax", "train", "quickstart", *fresh])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 130
    assert capsys.readouterr().err == f"Interrupted. Run the same command {advice}\n"
