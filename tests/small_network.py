"""A network that no catalogue has, a recipe of a few steps for it, and keys: for marks in somebody's training."""

import torch
from torch import nn

import wm

KEY, OTHER_KEY, SEED = bytes(range(32)), bytes(reversed(range(32))), bytes(32)
TAPS = ("stem", "deep")
SETTINGS = wm.EmbedSettings(
    triggers=100,
    hidden=32,
    pooling=4,
    steps=6,
    trigger_batch=50,
    shadows=2,
    shadow_steps=2,
    primary_batch=16,
    head_steps=150,
)


class SmallNetwork(nn.Module):
    """Two convolutions with batch normalisation, dropout, a classifier."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.deep(self.stem(images)).mean((2, 3))))
