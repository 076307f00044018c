"""Promised: that features are centred before a head reads them gives a head for all networks nothing to go by.

A head that standardises what it reads over a suspect's own answers was found to carry over to networks that it had
never seen (SCHEMES 0, item 3). Centring by public probes is half of that. The forger's head reads, at each tap, the
mean over the channels, less its mean over the probes, of many fresh networks; it is held against fresh ones that are
new to it.
"""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wm.architectures import Architecture, build
from wm.attacks import Stolen
from wm.attacks.forgeries.forgery import info_for
from wm.attacks.forgeries.universal_head import channel_means
from wm.backbone import features_in_evaluation
from wm.controls import CALIBRATION_PROBES, calibrate
from wm.data import Dataset, Examples
from wm.head import Head
from wm.randomness import EndlessOrder, generator, key_of, seeded
from wm.triggers import InputSpec, Normalisation, make_probes, make_triggers

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
SPEC = InputSpec(3, 28, 28, Normalisation(("0.5",) * 3, ("0.5",) * 3))
NOTHING = Examples(torch.empty(0, 3, 28, 28), torch.empty(0, dtype=torch.int64))
DATA = Dataset("nothing", 10, SPEC, train=NOTHING, validation=NOTHING, test=NOTHING)
POOLING, TRAINING, UNSEEN, STEPS = 8, 12, 4, 600


@pytest.mark.slow
def test_a_head_over_many_centred_networks_does_not_carry_over_to_others() -> None:
    info = info_for(Stolen(model=build(ARCHITECTURE, seed=1), architecture=ARCHITECTURE, data=DATA), pooling=POOLING)
    triggers, probes = make_triggers(bytes(32), info.input, count=info.triggers), make_probes(info.input, count=256)

    def centred(number: int) -> Tensor:
        network = build(ARCHITECTURE, seed=key_of(1, "network", number))
        calibrate(network, info, probes[:CALIBRATION_PROBES])
        read, probed = (
            channel_means(
                features_in_evaluation(network, info.modules, images, pooling=POOLING), info.taps, pooling=POOLING
            )
            for images in (triggers.images, probes)
        )
        return read - probed.mean(0)

    read = [centred(number) for number in range(TRAINING + UNSEEN)]
    seen, labels = torch.cat(read[:TRAINING]), triggers.labels.long()
    with seeded("universal head"):
        head = Head(inputs=seen.shape[1], hidden=64)
    order = EndlessOrder(len(seen), 500, generator("order of a universal head"))
    head.mean.copy_(seen.mean(0))
    head.std.copy_(seen.std(0))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(STEPS):
        chosen = next(order)
        optimizer.zero_grad()
        F.cross_entropy(head(seen[chosen]), labels.repeat(TRAINING)[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        shares = [float((head(it).argmax(1) == labels).float().mean()) for it in read]
    assert min(shares[:TRAINING]) >= 0.7  # it has learnt what it was shown
    assert max(shares[TRAINING:]) <= 0.59  # as a vote allows a fresh control
