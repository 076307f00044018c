"""Promised: as much is pruned as the strength says, the least of it, and it stays pruned while the rest is tuned."""

import pytest
import torch

from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.fine_pruning import activities
from wm.symmetries.channels import neurons
from wm.weight_layers import prunable


def all_weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in prunable(model)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_magnitude_pruning_reaches_its_sparsity_with_the_smallest_weights(stolen: Stolen, share: float) -> None:
    before = all_weights(stolen.model)
    after = all_weights(attacked(ATTACKS["magnitude_pruning"], stolen, strength=share, seed=1))
    zeros = after == 0
    assert int(zeros.sum()) == round(share * len(before))
    assert torch.equal(after[~zeros], before[~zeros])
    if zeros.any():
        assert before[zeros].abs().max() <= before[~zeros].abs().min()


def test_pruning_what_is_pruned_already_prunes_no_more(stolen: Stolen) -> None:
    once = attacked(ATTACKS["magnitude_pruning"], stolen, strength=0.5, seed=1)
    again = Stolen(model=once, architecture=stolen.architecture, data=stolen.data)
    assert torch.equal(
        all_weights(attacked(ATTACKS["magnitude_pruning"], again, strength=0.2, seed=1)), all_weights(once)
    )


def test_neuron_pruning_cuts_off_the_smallest_filters_with_their_normalisation(stolen: Stolen, answers) -> None:
    sizes = stolen.model.layer1.conv1.weight.abs().sum((1, 2, 3))
    model = attacked(ATTACKS["neuron_pruning"], stolen, strength=0.5, seed=1)
    silent = []
    model.layer1.bn1.register_forward_hook(lambda _m, _i, read: silent.append((read == 0).all((0, 2, 3))))
    answers(model, stolen.data.test)
    assert int(silent[0].sum()) == 4
    assert sizes[silent[0]].max() <= sizes[~silent[0]].min()
    assert torch.equal(model.fc2.weight, stolen.model.fc2.weight)


def test_fine_pruning_cuts_off_the_filters_that_are_used_least(stolen: Stolen) -> None:
    layers = neurons(stolen.model)
    used = activities(stolen.model, layers, stolen.data.train)
    model = attacked(ATTACKS["fine_pruning"], stolen, strength=0.25, seed=1)
    for (convolution, normalisation), activity in zip(neurons(model), used, strict=True):
        cut = convolution.weight.abs().sum((1, 2, 3)) == 0
        assert int(cut.sum()) == round(0.25 * len(cut))
        assert activity[cut].max() <= activity[~cut].min()
        if normalisation is not None:
            assert not normalisation.weight[cut].any()
            assert not normalisation.bias[cut].any()
    assert not torch.equal(model.fc2.weight, stolen.model.fc2.weight)  # the rest was tuned


def test_activity_is_what_passes_a_relu(stolen: Stolen) -> None:
    layers = neurons(stolen.model)
    read = []
    hook = stolen.model.layer1.bn1.register_forward_hook(lambda _m, _i, answer: read.append(answer))
    (found, *_) = activities(stolen.model, layers, stolen.data.train)
    hook.remove()
    assert torch.allclose(found, torch.cat(read).clamp_min(0).mean((0, 2, 3)), atol=1e-5)
