"""Adversarial frontier stitching: a zero-bit, black-box watermark in where a network's decision frontier runs.

Le Merrer, Pérez, Trédan, "Adversarial frontier stitching for remote neural network watermarking", Neural Computing and
Applications 32, 2020. The key set is of adversaries, half of which fool the owner's network (true) and half of which
do not (false), labelled with the class of the picture that they were made of; the network is fine-tuned until it
answers them so. A suspect is asked for its answers, no more.

Where this differs from the paper, of which the abstract and SCHEMES 1.4 were available, and from the published code:

* ε is in levels of 255 and the pictures are 8 bits before their kind is decided: what is stitched can be sent as a PNG.
  A pixel whose gradient is exactly 0 is moved up rather than not at all, so that one bit tells its direction.
* The watermark key decides which pictures are chosen, in which order, and hides the classes (`keyed`); the paper's key
  is the set itself, and published code takes the first pictures of a file.
* The task's own loss stays in the fine-tuning, with the weight `primary_weight`. Batch normalisation is frozen and
  dropout off, so that what is trained is what is verified.
* θ is the largest number that fulfils its inequality. Two published implementations return the next one.
* A verdict does not rest on θ. Its null is a coin, but honest networks answer nearly all false adversaries and many
  true ones with the original class: the default recipe is weak for that reason, and `Settings.quick` takes true
  adversaries alone and a larger ε. The null is measured instead (`statistic`).

What a cheating owner may try, and what becomes of it:

* Another owner's key set under his own key: before it is revealed, the classes come out random. Once it is, he can hide
  the same classes under his key; then only the time of publication tells the two apart, as for every copied mark.
* One picture asked a hundred times, exactly or with a little noise, so that one lucky answer counts a hundred times:
  refused on reading (`key_set.alike`). Copies that are shifted, mirrored or made brighter are not recognised.
* Triggers that are no perturbations of their originals: cannot be written down.
* Classes or pictures that no honest network agrees with: shows on the originals (`counted`).
* Null models that are no classifiers of the task, which match by 1/C: do not count (`NullCount.is_honest`).
* Grinding keys, or picking pictures by hand: a node does not have the owner's training set, so it cannot check that the
  choice is the key's. What is chosen after the suspect is known to match it is worthless to judge it, so the
  publication has to be older than the suspect, as for every scheme.
* Pictures on which the very null models fail that a node will use, and others do not: cannot be closed here. Null
  models have to be trained or chosen when the publication can no longer be changed.
* Independent networks that are hard to fool: the classes demanded are the right ones, so a network that was trained
  against adversaries matches without being anybody's copy. This is in the nature of the scheme. Only null models that
  were hardened in the same way show it: a node should have one among them, and its worst null model then takes the
  scheme's power away rather than convicting an innocent.
* Another owner who has stitched his own network may well be one of those: stitching teaches more than its key set (a
  marked network answered 84 of 100 adversaries that were made against a null model, MNIST, one seed). Other owners'
  marked networks belong among the null models.
"""

from wm.schemes.frontier_stitching.key_set import KeySet, class_triggers, clean_triggers, payload_from
from wm.schemes.frontier_stitching.settings import Settings
from wm.schemes.frontier_stitching.statistic import NullCount, counted, theta
from wm.schemes.frontier_stitching.stitching import NAME, embed

__all__ = [
    "NAME",
    "KeySet",
    "NullCount",
    "Settings",
    "class_triggers",
    "clean_triggers",
    "counted",
    "embed",
    "payload_from",
    "theta",
]
