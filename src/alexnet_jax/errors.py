"""The one error a user is meant to see."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something only the user can put right, told in one line: what is wrong and what to do. The CLI prints it and exits."""


class DivergedError(UserError):
    """A loss that is no number any more."""


@contextmanager
def disk_full_as_user_error(what: str) -> Iterator[None]:
    """Turns what is raised where a disk, a quota or a limit leaves no room into a line that says "no room left" and `what`."""
    try:
        yield
    except Exception as error:
        known = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        # Orbax passes on what TensorStore says, which has no number.
        if getattr(error, "errno", None) in known or any(os.strerror(number) in str(error) for number in known):
            raise UserError(f"no room left on the disk {what}") from error
        raise
