"""Errors that a person reads: what is wrong, and what to do about it."""


class UserError(Exception):
    """Something that a person can mend; it is shown without a traceback.

    Args:
        message: what is wrong, one sentence that ends with a full stop.
        hint: what to do, one sentence that ends with a full stop.

    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"
