"""Fragile watermark: triggers so near a boundary of the untouched model that hardly any change of it spares them all.

It proves integrity, not ownership: a suspect that gives every trigger its label is INTACT, any other one is TAMPERED.
The model is not changed at all.

Source: Yin, Yin, Zhang, "Neural Network Fragile Watermarking with No Model Performance Degradation", ICIP 2022, and
their code.

What differs from both, and why:
* Labels are drawn uniformly by the watermark key, and so are the latents; the code repeats 0 to 9, and seeds torch.
* The generator ends in a sigmoid and is trained through the rounding to 8 bits: triggers are pixels, which a PNG and an
  endpoint carry exactly. The code keeps its outputs as floating-point numbers without bounds.
* Margins are polished by single levels of pixels into a band above the numeric noise. In the code they are as they
  fall: some so small that another GPU flips them, which would be a false alarm, and most needlessly large.
* All classes tie with the label, or the nine nearest, as the paper's loss wants it and its generator does not reach.
* Sizes on the generator's way are halves of the picture's own, so that it may have any; the code knows 32 x 32.

What it does not detect: a change that leaves the function alone, such as renumbered or rescaled channels, since that
is the same model to everybody who uses it; a change that moves no trigger's margin by more than is kept for noise,
such as ten steps at a small learning rate with frozen batch statistics where the triggers tolerate TF32
(docs/schemes.md has the figures), or a change of a layer that the triggers do not reach (`least_detectable` measures
that, layer by layer); and whoever knows the triggers, since he can keep their answers while he changes all others: a
claim that reveals them is the last one that they are good for. Behind an endpoint the triggers, which look like no
natural picture, can be told apart and sent to an untouched copy.

What an owner could cheat with, and who finds it, stands in `examination`.
"""

from wm.schemes.fragile.examination import Examination, examine, least_detectable
from wm.schemes.fragile.marking import embed
from wm.schemes.fragile.payload import FragilePayload, class_triggers, payload_from
from wm.schemes.fragile.settings import Settings

NAME = "fragile"
KIND = "integrity"

__all__ = [
    "KIND",
    "NAME",
    "Examination",
    "FragilePayload",
    "Settings",
    "class_triggers",
    "embed",
    "examine",
    "least_detectable",
    "payload_from",
]
