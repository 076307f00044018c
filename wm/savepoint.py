"""Savepoints: what a training needs to go on after it was killed, with the bits that it would have had.

A savepoint is one safetensors file of its own format. Its metadata name the training that it is of, by conditions such
as the seed and hashes of data and key, and carry a SHA-256 over conditions and tensors: no other training goes on from
it, and none from a damaged one. It holds what a watermark has of secrets, so only its owner may read it, and whoever
has saved what came of the training removes it.

It is written under one temporary name beside its own, flushed and renamed, so that a kill leaves the last one whole.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor, nn

from wm import tensorfile
from wm.errors import WatermarkError

FORMAT = "wmreg-savepoint/1"
FILE_BYTES_MAX = 32 << 30
EVERY_S = 60.0
_MODE = 0o600
_SHOWN_CHARACTERS_MAX = 40

State = dict[str, Tensor]


class Stateful(Protocol):
    """What a training changes on its way, and can be put back to a state."""

    def state(self) -> State:
        """Return the state; its tensors need not be copies."""

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        """Go back to a state."""


class Savepoint:
    """Where one training keeps its state, and how often.

    Args:
        path: a file, replaced with each state; its folder must exist.
        every_s: how many seconds lie between two states, at least; 0 for one after every step. What comes of the
            training does not depend on it.
    """

    def __init__(self, path: Path | str, *, every_s: float = EVERY_S) -> None:
        self.path, self.every_s = Path(path), every_s
        self._conditions: dict[str, str] = {}
        self._written_s = time.monotonic()

    def begin(self, conditions: Mapping[str, str]) -> State | None:
        """Say which training this is; return its state, if an earlier run left one.

        Args:
            conditions: by name, what must be the same for a training to go on: texts, or hashes of `fingerprint`.

        Raises:
            WatermarkError: `malformed` for a damaged file or another format; `mismatch` for a savepoint of another
                training, naming the first condition that differs.
            OSError: the file cannot be read.
        """
        self._conditions = dict(conditions)
        self._written_s = time.monotonic()
        if not self.path.exists():
            return None
        held, tensors = self._read()
        self._check_same(held)
        return tensors

    def is_due(self) -> bool:
        """Whether the last state was written long enough ago."""
        return time.monotonic() - self._written_s >= self.every_s

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Replace the file; call it after `begin`.

        Args:
            state: on any device, in any memory format.

        Raises:
            OSError: the folder cannot be written; an existing file is left as it was.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        conditions = json.dumps(self._conditions, sort_keys=True)
        metadata = {"format": FORMAT, "conditions": conditions, "sha256": _digest(conditions, tensors)}
        # One name, not a random one: what a kill leaves half written is replaced by the next, and found by `remove`.
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(safetensors.torch.save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        self._temporary.replace(self.path)
        tensorfile.flush_folder(self.path.parent)
        self._written_s = time.monotonic()

    def remove(self) -> None:
        """Remove the file, and what a kill may have left half written; none is no error."""
        for path in (self.path, self._temporary):
            path.unlink(missing_ok=True)

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.partial")

    def _read(self) -> tuple[dict[str, str], State]:
        try:
            with tensorfile.opened(self.path, file_bytes_max=FILE_BYTES_MAX) as handle:
                return _checked(handle.metadata() or {}, handle)
        except WatermarkError as error:
            message = f"no savepoint, or a damaged one ({error}); name another file, or remove it to begin again"
            raise WatermarkError(error.code, f"{self.path}: {message}") from error

    def _check_same(self, held: Mapping[str, str]) -> None:
        for name in sorted(set(held) | set(self._conditions)):
            there, here = held.get(name, "none"), self._conditions.get(name, "none")
            if there != here:
                short = max(len(there), len(here)) <= _SHOWN_CHARACTERS_MAX
                values = f" ({there} there, {here} here)" if short else ""
                raise WatermarkError(
                    "mismatch",
                    f"{self.path} is the savepoint of another training, with another {name}{values}: "
                    "begin as that one began, or remove the file",
                )


def fingerprint(*values: object) -> str:
    """Hash tensors, texts, numbers, and sequences, mappings and dataclasses of them; SHA-256, hexadecimal.

    Raises:
        TypeError: a value is something else.
    """
    digest = hashlib.sha256()
    _feed(digest, values)
    return digest.hexdigest()


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Put a prefix and a point before every name."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Select what `prefixed` named, by its own names."""
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}


def fill(held: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy tensors into those that are there; their device and memory format stay, on which the bits depend.

    Raises:
        WatermarkError: `mismatch`, a name or a shape is another.
    """
    if sorted(held) != sorted(state):
        raise WatermarkError("mismatch", f"the state lacks or has too much: {sorted(set(held) ^ set(state))[:3]}")
    with torch.no_grad():
        for name, value in held.items():
            if value.shape != state[name].shape or value.dtype != state[name].dtype:
                raise WatermarkError("mismatch", f"the state has another shape or type for {name!r}")
            value.copy_(state[name])


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Return what an optimiser has gathered, by the parameter's place in its groups; its rates are not in it."""
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def fill_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Give a fresh optimiser what another one had gathered.

    Its own `load_state_dict` keeps the memory format of what is loaded. Here everything of a parameter's shape gets the
    parameter's format, as the optimiser itself would have made it.

    Args:
        optimizer: with the same parameters in the same groups.
        state: of `optimizer_state`.

    Raises:
        WatermarkError: `mismatch`, it does not belong to these parameters.
    """
    parameters = _parameters(optimizer)
    for key, value in state.items():
        digits, _, name = key.partition(".")
        if not digits.isdecimal() or int(digits) >= len(parameters):
            raise WatermarkError("mismatch", f"the optimiser has no parameter {digits}")
        parameter = parameters[int(digits)]
        like = parameter if value.shape == parameter.shape and name != "step" else value
        made = torch.empty_like(like, device=parameter.device, requires_grad=False)
        optimizer.state[parameter][name] = made.copy_(value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _checked(metadata: Mapping[str, str], handle: Any) -> tuple[dict[str, str], State]:  # noqa: ANN401
    if metadata.get("format") != FORMAT:
        raise WatermarkError("malformed", f"its format is not {FORMAT}")
    tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 -- no mapping
    conditions = metadata.get("conditions", "")
    if metadata.get("sha256") != _digest(conditions, tensors):
        raise WatermarkError("malformed", "its hash is another")
    return _conditions_in(conditions), tensors


def _conditions_in(text: str) -> dict[str, str]:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WatermarkError("malformed", "its conditions are no JSON") from error
    if not isinstance(held, dict) or not all(isinstance(value, str) for value in held.values()):
        raise WatermarkError("malformed", "its conditions are not texts by name")
    return held


def _digest(conditions: str, tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(conditions, dict(sorted(tensors.items())))


def _feed(digest: Any, value: object) -> None:  # noqa: ANN401 -- hashlib has no name for it
    """Feed a value with its type and its length, so that no two values are the same bytes."""
    if isinstance(value, Tensor):
        digest.update(f"tensor:{value.dtype}:{tuple(value.shape)}:".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(digest, [type(value).__name__, *(getattr(value, field.name) for field in fields(value))])
    elif isinstance(value, Mapping):
        _feed(digest, [part for pair in value.items() for part in pair])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"sequence:{len(value)}:".encode())
        for part in value:
            _feed(digest, part)
    elif isinstance(value, str | bytes | int | float | None):
        encoded = value if isinstance(value, bytes) else str(value).encode()
        digest.update(f"{type(value).__name__}:{len(encoded)}:".encode() + encoded)
    else:
        raise TypeError(f"a {type(value).__name__} has no fingerprint")
