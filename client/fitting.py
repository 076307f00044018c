"""Whether nodes could read a network out of a model file at all, before a claim on it reveals a watermark key for good.

Nodes vote UNVERIFIABLE on a file of another architecture, of half precision or with weights that are not finite, and
the key is spent. Importing this module imports torch, so it is done where a local file is claimed.
"""

from pathlib import Path

from client.bundle import Bundle
from client.errors import InvalidError
from client.models import watermark_errors
from wm.verification import check_suspect


def check_fits(model: Path, bundle: Bundle) -> None:
    """Check that a file has the weights that the evidence's scheme reads, as a node reads them.

    Args:
        model: the suspect, safetensors.
        bundle: of the watermark that is claimed.

    Raises:
        InvalidError: it has not, naming the tensor, or the evidence names no network of the catalogue.
        OSError: a file cannot be read.
    """
    try:
        with watermark_errors():
            check_suspect(model, bundle.evidence, model_bytes_max=model.stat().st_size)
    except InvalidError as error:
        message = f"{error}; no node could verify a claim on it, so none was made and no key was revealed"
        raise InvalidError(message, code=error.code) from error
