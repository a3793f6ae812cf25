"""Errors that the user can fix, with one-line messages, and checks of options that raise them."""

import errno
import math
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Error that the user can fix.

    The message is one line: what is wrong, then what to do. The CLI prints it without a traceback and exits.
    """


class DivergedError(UserError):
    """Non-finite loss during training."""


def check_number(
    name: str,
    value: int | float | None,
    *,
    at_least: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    at_most: int | float | None = None,
) -> None:
    """Check the range of a setting.

    Args:
      name: name of the setting, as an option if it is one, such as "--batch-size".
      value: value of the setting; None is not checked.
      at_least: smallest allowed value.
      above: largest value that is too small.
      below: smallest value that is too large.
      at_most: largest allowed value.

    Raises:
      UserError: if the value is out of range or not a finite number.

    Examples:
      >>> check_number("--batch-size", 0, at_least=1)
      Traceback (most recent call last):
      ...
      alexnet_jax.errors.UserError: --batch-size must be at least 1, not 0
    """
    limits = (
        ("at least", at_least, operator.ge), ("greater than", above, operator.gt),
        ("less than", below, operator.lt), ("at most", at_most, operator.le),
    )  # fmt: skip
    if value is None:
        return
    given = [(words, limit, compare) for words, limit, compare in limits if limit is not None]
    if not (math.isfinite(value) and all(compare(value, limit) for _, limit, compare in given)):
        conditions = [f"{words} {limit}" for words, limit, _ in given] + ["finite"] * (not math.isfinite(value))
        raise UserError(f"{name} must be {' and '.join(conditions)}, not {value}")


def check_at_least(settings: object, **minimums: int) -> None:
    """Check the smallest values of the fields of a dataclass whose fields are options.

    Args:
      settings: the dataclass.
      **minimums: smallest allowed value of a number, or of each number of a tuple, by the name of the field. None is allowed.

    Raises:
      UserError: if a number is too small or not finite, or a tuple is empty.
    """
    for name, minimum in minimums.items():
        option, value = f"--{name.replace('_', '-')}", getattr(settings, name)
        if value == ():
            raise UserError(f"{option} has no value: pass one or more")
        for number in value if isinstance(value, tuple) else (value,):
            check_number(option, number, at_least=minimum)


def one_line(error: Exception, max_length: int | None = None) -> str:
    """Return up to `max_length` characters of an error's message on one line, or the name of its type if the message is empty.

    Examples:
      >>> one_line(ValueError("invalid\\nheader"))
      'invalid header'
    """
    return " ".join(str(error).split())[:max_length] or type(error).__name__


MAX_SEED = 2**32 - 1
"""Largest random seed, a limit of Grain."""


def describe_os_error(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """Return the message about an error of the system: the path, the system's reason, and what to do.

    Args:
      error: the error.
      path: path to name; None names the one of the error, or, if a file could not be renamed, its new name.

    Examples:
      >>> describe_os_error(PermissionError(errno.EACCES, "Permission denied", "runs"))
      'cannot access runs (Permission denied): choose a different path, or change its permissions'
    """
    path = path or error.filename2 or error.filename
    if path is None:  # for example, of the output
        return error.strerror or str(error)
    # `Path.mkdir` raises FileExistsError for a file that is not a folder, which it would otherwise accept.
    reason = os.strerror(errno.ENOTDIR) if error.errno == errno.EEXIST else error.strerror
    denied = error.errno in (errno.EACCES, errno.EPERM)
    advice = "choose a different path, or change its permissions" if denied else "choose a different path"
    return f"cannot access {os.fspath(path)} ({reason}): {advice}"


DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers for no space on the device, quota exceeded, and file size limit exceeded."""


@contextmanager
def disk_full_as_user_error(purpose: str) -> Iterator[None]:
    """Convert errors about a full disk, an exceeded quota or a file size limit to `UserError`; propagate all others.

    Args:
      purpose: end of the message "no space left on the disk ...", such as "for log.jsonl".

    Raises:
      UserError: if the block fails for lack of disk space.
    """
    try:
        yield
    except Exception as error:
        # Orbax raises TensorStore's errors, which contain the text of the OS error but not its errno.
        numbers = DISK_FULL_ERRNOS
        if getattr(error, "errno", None) in numbers or any(os.strerror(number) in str(error) for number in numbers):
            raise UserError(f"no space left on the disk {purpose}") from error
        raise
