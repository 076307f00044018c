"""The schemes without a branch, by name: what each counts, and its functions under one shape.

MTLSign, the first and the default, is not among them: `wm.verification` reads its branch.

Source: DESIGN 6.1; SCHEMES 5, "Interface".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from wm.architectures import skeleton
from wm.errors import WatermarkError
from wm.schemes import fragile, frontier_stitching, locked_parameters, margin, mtlsign
from wm.schemes.info import SchemeInfo
from wm.schemes.scheme import ClassTriggers, Marked, Payload

# The words of the ledger's verdict engine.
StatisticName = Literal["signs", "classes", "calibrated", "integrity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """One scheme.

    Attributes:
        name: as publications and infos spell it.
        statistic: what is counted.
        settings, quick: the paper's recipe, and one for a CPU.
        embed: model, data and watermark key in; see each scheme.
        payload_from: reads a stranger's payload.
        class_triggers: of a black-box scheme; None for one that reads weights.
        agreements: of a scheme that reads weights, which of them the key demands; None for a black-box one.
        read_names: likewise, the tensors of a network that may be read; None for all, since the network is run.
    """

    name: str
    statistic: StatisticName
    settings: Callable[[], Any]
    quick: Callable[[], Any]
    embed: Callable[..., Marked]
    payload_from: Callable[[SchemeInfo, Mapping[str, Tensor]], Payload]
    class_triggers: Callable[[Any, bytes], ClassTriggers] | None = None
    agreements: Callable[[nn.Module, Any, bytes], Tensor] | None = None
    read_names: Callable[[nn.Module], tuple[str, ...]] | None = None


def _of_pictures(
    read: Callable[..., Payload],
) -> Callable[[SchemeInfo, Mapping[str, Tensor]], Payload]:
    return lambda info, tensors: read(info.payload, tensors, spec=info.pictures(), classes=info.classes)


_ALL = (
    Scheme(
        name=frontier_stitching.NAME,
        statistic="calibrated",
        settings=frontier_stitching.Settings,
        quick=frontier_stitching.Settings.quick,
        embed=frontier_stitching.embed,
        payload_from=_of_pictures(frontier_stitching.payload_from),
        class_triggers=frontier_stitching.class_triggers,
    ),
    Scheme(
        name=margin.NAME,
        statistic="classes",
        settings=margin.Settings,
        quick=margin.Settings.quick,
        embed=margin.embed,
        payload_from=_of_pictures(margin.payload_from),
        class_triggers=margin.class_triggers,
    ),
    Scheme(
        name=locked_parameters.NAME,
        statistic="signs",
        settings=locked_parameters.Settings,
        quick=locked_parameters.Settings.quick,
        embed=locked_parameters.embed,
        payload_from=lambda info, tensors: locked_parameters.payload_from(
            info.payload, tensors, shapes=locked_parameters.lockable(skeleton(info.architecture))
        ),
        agreements=locked_parameters.agreements,
        read_names=lambda model: tuple(locked_parameters.lockable(model)),
    ),
    Scheme(
        name=fragile.NAME,
        statistic="integrity",
        settings=fragile.Settings,
        quick=fragile.Settings.quick,
        embed=fragile.embed,
        payload_from=_of_pictures(fragile.payload_from),
        class_triggers=fragile.class_triggers,
    ),
)
SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _ALL})
NAMES = (mtlsign.NAME, *SCHEMES)


def scheme_of(name: str) -> Scheme:
    """Find a scheme without a branch.

    Raises:
        WatermarkError: `unknown_scheme`.
    """
    try:
        return SCHEMES[name]
    except KeyError:
        raise WatermarkError("unknown_scheme", f"scheme {name[:40]!r}; this version knows {', '.join(NAMES)}") from None
