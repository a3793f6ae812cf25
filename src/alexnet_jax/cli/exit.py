"""Exit of commands and scripts: errors that the user can fix in one line, and exit codes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from alexnet_jax.errors import UserError, describe_os_error
from alexnet_jax.text import printable


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print a `UserError` or `OSError` of the block as one line on stderr and exit with code 1; exit with 130 on Ctrl-C.

    The same holds if JAX has no device. If the program that reads stdout has ended, as in `alexnet-jax schedule two_tower |
    head -3`, the exit code is 1, and nothing is printed.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more when it exits
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # for example, a name that is too long or a missing permission
        _exit(describe_os_error(error))
    except UserError as error:
        _exit(str(error))
    except (RuntimeError, AssertionError):
        try:  # JAX raises them for a platform that does not exist
            import_module("alexnet_jax.parallel.runtime").check_platform()
        except UserError as error:
            _exit(str(error))
        raise


def _exit(message: str) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1)
