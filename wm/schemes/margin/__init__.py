"""Margin-based watermarking: triggers amid a margin that is to survive the theft of what a network does.

A black-box scheme. Some pictures get classes that the watermark key demands; beside every batch of the task, some of
them are moved by gradient ascent to where the network is least sure of these classes, and trained there. So not points
but their surroundings are taught, which a student of the network is meant to learn along.

Where this differs from the paper and its code, and why:

* Labels are drawn by the key from all classes alike, after the pictures and from all of them together (`draws`). The
  paper draws them from the wrong classes. Then nobody knows the chance of a model that has nothing to do with the key:
  it is below 1/C, by as much as the model is good. Here it is exactly 1/C for any model. The price: about n/C triggers
  keep their true class and tell nothing.
* Pictures are drawn by the key from the validation split as they are. The code lets its training's random shifts and
  mirrorings happen to them once; where the validation split is too small it has no answer, here the training set gives
  them and is trained on without them (`preparation`).
* Pixels are rounded to 8 bits before anything is done with them, as the code does as well.
* The ascent looks at the network in evaluation mode, the code in training mode, in which 25 triggers alone make the
  batch statistics. Pictures and moved triggers go through the network in one batch, in the code in two (`embedding`).
* The weights of the last step are taken. The code takes those of the epoch with the best validation accuracy; the rate
  has fallen to a hundredth by then.
* Their plain backdoor shows the network one trigger a batch at full weight. Here `Settings(ascent_steps=0)` is the same
  as the scheme but for the ascent, so that a comparison tells what the ascent does.

What a cheating owner can do: nothing to the pictures or the normalisation without drawing all labels anew. That his
pictures came from a validation split cannot be checked and need not be: whatever they are, labels come after. To fit a
stranger's model he must try keys, 1 / P(Bin(n, 1/C) >= k) of them for k matches, which a policy's bound puts beyond
anybody's means. What this cannot close: who publishes his triggers in a public base finds them in everything that is
made from it, and a second mark can be trained into a stolen model; the ledger's order, and controls, answer that.

Source: Kim, Lee, Lee, Son, Hwang, "Margin-based Neural Network Watermarking", ICML 2023; code
`matbambbang/margin-based-watermarking` @ 61d01c1.
"""

from wm.schemes.margin.embedding import embed
from wm.schemes.margin.payload import MarginPayload, class_triggers, payload_from
from wm.schemes.margin.settings import Settings

NAME = "margin"

__all__ = ["NAME", "MarginPayload", "Settings", "class_triggers", "embed", "payload_from"]
