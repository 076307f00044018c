"""Whether nodes could count anything in a file or at an endpoint, before a claim reveals a watermark key for good.

Nodes vote UNVERIFIABLE on a file of another architecture, of half precision or with weights that are not finite, and
the key is spent. Importing this module imports torch, so it is done where a local file is claimed.
"""

from pathlib import Path

from client.bundle import Bundle
from client.errors import InvalidError
from client.marking.models import watermark_errors
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


async def check_endpoint(url: str, bundle: Bundle) -> None:
    """Check that an endpoint takes the pictures of the evidence, as a node does before it asks; none is shown.

    Args:
        url: of the model.
        bundle: of the watermark that is claimed.

    Raises:
        InvalidError: the scheme reads weights, or the endpoint does not say from here that it takes such pictures.
        OSError: a file cannot be read.
    """
    from node.config import FetchSettings
    from node.download import FetchError
    from node.endpoint.asking import EndpointClient
    from node.endpoint.protocol import read_model
    from node.verifier.worker import questions_in

    watermark_key = bundle.load_watermark_key().binding.watermark_key
    with watermark_errors(bundle.evidence):
        pictures = questions_in(bundle.evidence, watermark_key).pictures
    here = FetchSettings(allow_private_addresses=True, file_directory="", timeout_s=60, unreachable_retry_s=0)
    client = EndpointClient(here)
    try:
        read_model(await client.look(url), pictures)
    except FetchError as error:
        message = f"{url}: {error}; no node could verify a claim on it, so none was made and no key was revealed"
        raise InvalidError(message, code=error.reason) from error
    finally:
        await client.close()
