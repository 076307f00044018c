"""The network that makes triggers of latents: a progressive GAN's generator, at its full size from the start.

latent -> normalised -> dense to the least size -> [doubled -> two convolutions] ... -> pixels in [0, 1]

Convolutions are equalised: weights begin as N(0, 1) and are scaled by He's constant where they are used, so that Adam's
steps are equally large everywhere. The sizes on the way are halves of the full one, rounded up, until none of its sides
is above 7, so that any size of pictures has one.

Source: Karras et al., "Progressive Growing of GANs", ICLR 2018, appendix A.1, as Yin et al. 2022 use it; the sigmoid at
the end is ours, since their pictures are no pixels.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_LEAST_SIDE_MAX = 7  # pixels
_SLOPE = 0.2
_NARROW = 16  # channels that no stage goes below


class Equalised(nn.Module):
    """A convolution, 3 x 3 or 1 x 1, whose weights are scaled where they are used.

    Args:
        channels_in: of its input.
        channels_out: of its output.
        side: of the kernel, odd.
        gain: times which the output's deviation is the input's.
        draws: of the first weights.
    """

    def __init__(self, channels_in: int, channels_out: int, *, side: int, gain: float, draws: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, side, side, generator=draws))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self._scale = gain / math.sqrt(channels_in * side**2)
        self._padding = side // 2

    def forward(self, values: Tensor) -> Tensor:
        """Convolve, shape (n, channels_in, h, w) to (n, channels_out, h, w)."""
        return F.conv2d(values, self.weight * self._scale, self.bias, padding=self._padding)


class Generator(nn.Module):
    """G: latents to pictures.

    Args:
        latent: numbers in a latent.
        width: channels of the first stages; each of the last ones has half of its predecessor's.
        channels: of the pictures.
        height: of the pictures, pixels.
        width_pixels: of the pictures.
        draws: of the first weights.
    """

    def __init__(
        self, *, latent: int, width: int, channels: int, height: int, width_pixels: int, draws: torch.Generator
    ) -> None:
        super().__init__()
        self._sizes = stage_sizes(height, width_pixels)
        widths = [max(min(_NARROW, width), width >> max(0, stage - 2)) for stage in range(len(self._sizes))]
        cells = math.prod(self._sizes[0])
        # A dense layer is a 1 x 1 convolution of a 1 x 1 picture.
        self.first = Equalised(latent, widths[0] * cells, side=1, gain=math.sqrt(2 / cells), draws=draws)
        pairs = zip([widths[0], *widths], widths, strict=False)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Equalised(before, after, side=3, gain=math.sqrt(2), draws=draws)
                for before, after in ((wide, narrow), (narrow, narrow))
            )
            for wide, narrow in pairs
        )
        self.last = Equalised(widths[-1], channels, side=1, gain=1.0, draws=draws)

    def forward(self, latents: Tensor) -> Tensor:
        """Make pictures; latents of shape (n, latent) give pixels in [0, 1], shape (n, channels, height, width)."""
        values = self.first(_normalised(latents)[:, :, None, None])
        values = _normalised(F.leaky_relu(values.view(len(latents), -1, *self._sizes[0]), _SLOPE))
        for size, stage in zip(self._sizes, self.stages, strict=True):
            values = F.interpolate(values, size=size)
            for convolution in stage:  # type: ignore[attr-defined]
                values = _normalised(F.leaky_relu(convolution(values), _SLOPE))
        return torch.sigmoid(self.last(values))


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of the stages, in pixels, from the least to the full one."""
    sizes = [(height, width)]
    while max(sizes[-1]) > _LEAST_SIDE_MAX:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes[::-1]


def _normalised(values: Tensor) -> Tensor:
    """Bring each pixel's channels to a mean square of 1."""
    return values * torch.rsqrt(values.square().mean(1, keepdim=True) + 1e-8)
