"""Exceptions whose message is shown to the user."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Error that the user can fix.

    The message is one line: what is wrong, then what to do. The CLI prints it without a traceback and exits.
    """


class DivergedError(UserError):
    """Non-finite loss during training."""


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
        disk_full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        # Orbax raises TensorStore's errors, which contain the text of the OS error but not its errno.
        if getattr(error, "errno", None) in disk_full or any(os.strerror(number) in str(error) for number in disk_full):
            raise UserError(f"no space left on the disk {purpose}") from error
        raise
