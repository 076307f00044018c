"""What can be wrong with the files and settings that reach the watermark library.

One class, told apart by a stable `code`, because every caller treats it alike: the node votes
UNVERIFIABLE with the code as its reason, the command prints the message. A file that cannot be opened
stays an OSError, and a caller's own mistake (a wrong tensor shape, a negative count) stays a ValueError.

    ValueError
    └── WatermarkError      .code
        malformed             no honest program writes these bytes
        unknown_architecture  the catalogue has no such builder, argument or tap
        unknown_scheme        no such scheme, head family or trigger encoder
        too_large             over a limit that keeps a hostile file from exhausting the machine
        mismatch              well formed, but it does not fit the other file or the architecture
"""

from typing import Literal

ErrorCode = Literal["malformed", "unknown_architecture", "unknown_scheme", "too_large", "mismatch"]


class WatermarkError(ValueError):
    """A model, evidence file or setting that the library refuses."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """Keep the code beside the message.

        Args:
            code: stable, part of the public API.
            message: names what is wrong and what to do about it.
        """
        super().__init__(message)
        self.code: ErrorCode = code
