"""Why an endpoint did not answer."""

from node.download import FetchError


class EndpointError(FetchError):
    """The answers could not be had.

    Attributes:
        reason: a vote's reason: unreachable, timeout, refused, malformed, too_large, wrong_input, inconsistent or
            unsupported_pointer.
        may_pass: whether the same request could end otherwise if it is sent again.
        after_s: how long to wait before that, if the endpoint says so.
    """

    def __init__(self, reason: str, detail: str, *, may_pass: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason, detail, may_pass=may_pass)
        self.detail, self.after_s = detail, after_s


class TooManyError(EndpointError):
    """The endpoint does not take so many pictures at once."""
