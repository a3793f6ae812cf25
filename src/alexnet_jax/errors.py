"""The one error a user is meant to see."""


class UserError(Exception):
    """Something only the user can put right, told in one line: what is wrong and what to do. The CLI prints it and exits."""
