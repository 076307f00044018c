"""Random key: show the owner's head, which his claim made public, with keys of one's own, and present the luckiest.

The head knows nothing of the forger's keys, so each count is a draw of Binomial(N, 1/2): the best of n keys comes
about as high as the best of n such draws (SCHEMES 4.4).
"""

from wm.attacks.attack import Scale, Stolen
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf, revealed_by
from wm.branch import count_matched
from wm.progress import Progress, ProgressCallback


def _forge(stolen: Stolen, tries: float, _seed: int, key_of: KeyOf, progress: ProgressCallback) -> Forged:
    revealed = revealed_by(stolen)
    counts = []
    for number in range(int(tries)):
        counts.append(count_matched(stolen.model, revealed.head, revealed.info, key_of(number)))
        progress(Progress("trying keys", number + 1, int(tries), f"best {max(counts)}"))
    return Forged(
        accused=stolen.model,
        head=revealed.head,
        info=revealed.info,
        key_number=counts.index(max(counts)),
        reference=revealed.reference,
    )


RANDOM_KEY = Forgery(
    name="random_key",
    summary="the owner's published head with the luckiest of one's own keys",
    scale=Scale(unit="keys tried", weakest=1, strongest=100_000, usual=(1, 20), is_whole=True),
    forge=_forge,
)
