"""Borrowed key: show somebody else's evidence and watermark key as one's own, as a claim of his has shown them.

On the model that carries the owner's mark all numbers are as good as the owner's. What refuses it is not a number: the
key is bound to the owner's signing key.

Source: Li et al. 2022, section 3 (tangling of key and owner); DESIGN 4.2.
"""

from wm.attacks.attack import Scale, Stolen
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf, revealed_by
from wm.progress import ProgressCallback


def _forge(stolen: Stolen, _strength: float, _seed: int, _key_of: KeyOf, _progress: ProgressCallback) -> Forged:
    revealed = revealed_by(stolen)
    return Forged(
        accused=stolen.model, head=revealed.head, info=revealed.info, key_number=None, reference=revealed.reference
    )


BORROWED_KEY = Forgery(
    name="borrowed_key",
    summary="the owner's own evidence and key, shown by somebody else",
    scale=Scale(unit="nothing: there is one strength", weakest=1, strongest=1, usual=(1,), is_whole=True),
    forge=_forge,
)
