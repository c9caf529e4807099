"""The one exception with which the simulator refuses a control call."""


class Refused(Exception):  # noqa: N818 - the name says what happened
    """A control call that cannot be done, with the HTTP status and the line that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
