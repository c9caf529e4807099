"""The exception for a refused control call."""


class Refused(Exception):  # noqa: N818 - the name states the result
    """A refused control call, with the HTTP status and a line with the reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
