"""Whether nodes could count anything in a suspect's file, on a machine without torch: by the marked model beside it.

A claim reveals the watermark key for good, so a file that nodes may be unable to read must not be claimed unseen, and
skipping the check of `client.marking.fitting` would do that. Nodes read the marked model; a file of the same outline
whose numbers are finite they read as well. Of any other file only the network itself can tell.
"""

from pathlib import Path

from client.bundle import Bundle, stated_model_sha256
from client.errors import InvalidError
from client.extras import NotInstalledError
from client.outline import difference, first_not_finite, read_outline
from registry.evidence import EvidenceFile

_NONE_MADE = "no claim was made and no key was revealed"


def check_like_marked(model: Path, sha256: bytes, evidence: EvidenceFile, bundle: Bundle) -> None:
    """Check that a file is the marked model, or alike.

    Args:
        model: the suspect, safetensors.
        sha256: its hash.
        evidence: of the watermark that is claimed.
        bundle: the owner's directory, with the marked model.

    Raises:
        InvalidError: a number in it is not finite: no node could verify a claim on it.
        NotInstalledError: it is not alike, so the check needs torch.
        OSError: a file cannot be read.
    """
    if sha256 == stated_model_sha256(evidence):
        return
    unlike, outline = None, read_outline(model)
    try:
        unlike = difference(outline, read_outline(bundle.model))
    except FileNotFoundError:
        unlike = f"{bundle.model} is not there to compare it with"
    except ValueError as error:
        unlike = f"{bundle.model}, to compare it with, is no file of weights: {error}"
    if unlike is not None:
        message = f"{model}: {unlike}; whether nodes could verify a claim on it can be told only with torch"
        raise NotInstalledError(f"{message}: pip install 'wmreg[wm]'; {_NONE_MADE}")
    name = first_not_finite(model, outline)
    if name is not None:
        message = f"{model}: tensor {name!r} has values that are not finite; no node could verify a claim on it"
        raise InvalidError(f"{message}, so none was made and no key was revealed", code="malformed")
