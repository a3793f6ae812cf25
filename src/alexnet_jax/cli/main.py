"""Entry point of the command line: dispatch to the commands, and one-line error messages."""

import codecs
import gc
import io
import os
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from alexnet_jax.cli.exit import exit_on_error
from alexnet_jax.errors import UserError, one_line
from alexnet_jax.training.preemption import exit_on_sigterm
from alexnet_jax.version import __version__

HELP = """usage: alexnet-jax COMMAND …

  train CONFIG        train a config of the package, or a Python file that defines CONFIG
  predict RUN… PHOTO… print the most probable classes of photos, by a trained network or the mean of several
  evaluate RUN…       measure the errors of a trained network, or of several and their mean prediction
  prepare             convert images into a prepared data set, or verify one
  data show DATA|RUN  draw augmented training images and the ten test views of a data set, or of the data of a run
  summary NETWORK     print the network of this name, or of a config, layer by layer
  schedule CONFIG     print the learning rates of a config, epoch by epoch
  figures RUN         draw kernels, predictions and retrieval, and write report.html
  index RUN           store the last hidden layer's features of each image of a data set
  retrieve INDEX      find the images of an index that are nearest to a photo
  export RUN          write a trained network to a single file, for this program or for PyTorch
  import FILE         convert weights of PyTorch, torchvision or Caffe into a file that all commands accept

Run alexnet-jax COMMAND --help for the options of a command. A network with layers or transforms of your own needs the Python file
that defines them: alexnet-jax --code FILE.py COMMAND …"""

COMMANDS = {
    "train": "train",
    "predict": "predict",
    "evaluate": "evaluate",
    "prepare": "prepare",
    "data": "show_data",
    "summary": "summary",
    "schedule": "schedule",
    "figures": "figures",
    "index": "index",
    "retrieve": "retrieve",
    "export": "export",
    "import": "import_weights",
}
"""Module in this package of each command, by command name; its function `run(arguments)` runs the command."""


def main() -> None:
    """Run the command named by `sys.argv`, after importing the files of --code; see `exit_on_error` for errors and exit codes."""
    words, files = sys.argv[1:], []
    while words[:1] == ["--code"]:
        files, words = files + words[1:2], words[2:]
    name, arguments = (words[0] if words else "" if sys.argv[1:] else "--help"), words[1:]
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(_encode_error.__name__, _encode_error)
        sys.stdout.reconfigure(errors=_encode_error.__name__)
    with exit_on_error():
        try:
            _run(name, arguments, files)
        except KeyboardInterrupt:
            if name in ("train", "prepare"):
                print(f"Interrupted. {_how_to_resume(arguments)}", file=sys.stderr)
            raise


def _open_closed_streams() -> None:
    """Open /dev/null as each standard stream that is closed: the next file to be opened would take its place otherwise."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the smallest free number
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _encode_error(error: UnicodeError) -> tuple[bytes, int]:
    """Print a path that is not UTF-8 byte for byte, and characters that the terminal does not have as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    parts = (
        character.encode("ascii", "surrogateescape" if "\udc80" <= character <= "\udcff" else "backslashreplace")
        for character in text
    )
    return b"".join(parts), error.end


def _run(name: str, arguments: list[str], files: list[str]) -> None:
    if name in ("-h", "--help"):
        print(HELP)
        return
    if name == "--version":
        print(f"alexnet-jax {__version__}")
        return
    if name not in COMMANDS:
        problem = f"unknown command {name!r}" if name else "--code needs a Python file, and a command after it"
        raise UserError(f"{problem}: choose one of {', '.join(COMMANDS)}")
    _check_not_empty(name, arguments)
    if name == "train":
        # Before the imports below, which take seconds.
        exit_on_sigterm(_interrupted_exit_code(arguments), _how_to_resume(arguments))
    gc.disable()  # searches for garbage, of which there is none, would take a tenth of the time of the imports
    os.environ["MPLBACKEND"] = "agg"  # figures are drawn to files
    try:
        command = import_module(f"alexnet_jax.cli.{COMMANDS[name]}")
    except ValueError as error:  # JAX checks its environment variables when it is imported
        reason = one_line(error)
        raise UserError(f"an environment variable has an invalid value ({reason}): correct or unset it") from error
    if not gc.get_freeze_count():
        gc.freeze()  # later searches skip what was imported
    gc.enable()
    for file in files:
        import_module("alexnet_jax.configs").import_file(Path(file))
    command.run(arguments)


def _check_not_empty(name: str, arguments: list[str]) -> None:
    """Check that no argument is empty, as from a shell variable that is not set: an empty path would be the current folder.

    Raises:
      UserError: if one is.
    """
    for previous, argument in pairwise([name, *arguments]):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            empty = f"the value of {argument[:-1] or previous}" if (argument or previous).startswith("--") else "an argument"
            raise UserError(f"{empty} is empty: pass one, or omit it")


def _how_to_resume(arguments: list[str]) -> str:
    return f"Run the same command to resume{'; with --fresh, it starts over' if '--fresh' in arguments else ''}."


def _interrupted_exit_code(arguments: list[str]) -> int:
    """Return the value of --interrupted-exit-code, before the command line is parsed."""
    text = " ".join(arguments).replace("=", " ").partition("--interrupted-exit-code ")[2].split(" ")[0]
    return int(text) if text.isdecimal() else 0
