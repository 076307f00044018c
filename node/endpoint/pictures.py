"""Pictures to ask about, as bytes: what the verifier process gives, and what an endpoint is shown."""

from dataclasses import dataclass

PICTURES_MAX = 4096  # as many as a vote may count
SIDE_MAX = 1024
CHANNELS_MAX = 16
CLASSES_MAX = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a picture in pixels."""

    channels: int
    height: int
    width: int

    @property
    def plane_bytes(self) -> int:
        """Bytes of one channel, which are also its pixels."""
        return self.height * self.width

    @property
    def picture_bytes(self) -> int:
        """Bytes of a picture."""
        return self.channels * self.plane_bytes

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures of one size, and how the marked network takes their pixels.

    Attributes:
        shape: of each.
        mean, std: the network's normalisation, (pixel / 255 - mean) / std, one decimal string for each channel.
        pixels: each picture's, 8 bits, one channel after the other, row by row.

    Raises:
        ValueError: a picture has another size, or the normalisation another number of channels.
    """

    shape: Shape
    mean: tuple[str, ...]
    std: tuple[str, ...]
    pixels: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if any(len(picture) != self.shape.picture_bytes for picture in self.pixels):
            raise ValueError(f"every picture must have {self.shape.picture_bytes} bytes")
        if not len(self.mean) == len(self.std) == self.shape.channels:
            raise ValueError(f"a normalisation of {self.shape.channels} channels is needed")

    def __len__(self) -> int:
        return len(self.pixels)
