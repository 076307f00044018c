"""Locked parameters: signs and sizes of the key, written into weights that training leaves alone.

    places, signs, sizes   from the watermark key and the architecture's shapes      `places`
    lock                   the weights keep their values through a whole training    `lock`, `embedding`
    replicas               the others are trained so that moving them costs loss     `embedding`, `curvature`
    statistic              how many signs agree, Binomial(n, 1/2) for a stranger     `payload`
    realignment            channels that were renumbered, put back; not by nodes     `realignment`

White box: the mark is read in the weights. The data is looked at by the training's loss alone, so pictures, texts and
pictures with objects are alike to it; only the realignment needs a classifier of pictures.

What differs from the paper and from its authors' code, and why:

* The code hides the pixels of a picture at places from two generators, one of them unseeded, and compares by
  correlation without a threshold. Here places, signs and sizes are the key's, so the count has an exact null.
* Sizes are in [1/2, 3/2] of twice the tensor's root mean square: larger than most weights, so that pruning takes them
  late, but of sizes that a tensor has anyway. The code's default writes up to ±10. Biases, normalisations and the last
  layer are left out (`places` says why).
* The code masks gradients only, and its optimiser's weight decay shrinks what it locks. Here the lock is exact.
* The replicas' noise is in units of the locked weight, since 0.01 means something else in every layer; it comes in
  pairs of opposite signs, so that slopes cancel; λ falls with the learning rate, or it would win in the end.
* The direction is the paper's: the loss shall rise where locked weights move. `direction=-1` is the released code's,
  without its decay. The code's λ = 1e-6 is a hundred-thousandth of its rate of 0.1;
  `Settings.quick` has two thirds of its rate.
* No pictures are cropped or turned over: a `Dataset` is what it is.

What a cheating owner can do. Of all that he publishes only the number n enters the count: places and signs are the
key's, shapes the architecture's, and the key is bound to him before the suspect is known. Trying keys costs him 2^75
attempts at n = 600 and 70 %; for a smaller n the verdict's own bound on the tail must hold. The values in the evidence
serve Pearson's r, which is no evidence. A public base is no way in: its weights were not locked, so it agrees by chance
with the key of whoever fine-tuned it. All of this is true of the count of the model *as it is*. The reference of the
realignment is his, and a crafted one convicts whom he likes: `realignment` says what an aligned count needs beside it.

What a thief can do. Once a claim has revealed the key, he writes over 600 weights and is rid of it: publish several
keys. Before that he can renumber channels, which realignment undoes where it knows the layer, or train so hard that
little of the network is left. That the replicas make the mark survive more than the plain lock does was not found at
this scale (bench/schemes/locked_parameters.py): the curvature along the locked weights rose a little, the training
loss by 8 to 10 %, and with either lock the signs held alike.

Source: Tartaglione, Grangetto, Cavagnino, Botta, "Delving in the loss landscape to embed robust watermarks into neural
networks", ICPR 2020; code EIDOSLAB at 926cd44 (read, not copied).
"""

from wm.schemes.locked_parameters.curvature import Sharpness, sharpness
from wm.schemes.locked_parameters.embedding import embed
from wm.schemes.locked_parameters.payload import LockedPayload, agreements, correlation, payload_from
from wm.schemes.locked_parameters.places import Places, lockable, positions
from wm.schemes.locked_parameters.realignment import aligned_agreements, realigned
from wm.schemes.locked_parameters.settings import Settings

NAME = "locked_parameters"

__all__ = [
    "NAME",
    "LockedPayload",
    "Places",
    "Settings",
    "Sharpness",
    "agreements",
    "aligned_agreements",
    "correlation",
    "embed",
    "lockable",
    "payload_from",
    "positions",
    "realigned",
    "sharpness",
]
