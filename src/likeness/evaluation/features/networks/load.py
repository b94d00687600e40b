"""Load each network with its weights once per process."""

from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from torch import Tensor, nn

from likeness.errors import WeightsError
from likeness.evaluation.features.networks.inception import Inception
from likeness.evaluation.features.networks.raft import Raft
from likeness.evaluation.features.networks.viclip import ViClip
from likeness.runtime import choose_device
from likeness.weights import entry, locate
from likeness.weights.strict import refuse_differences, shapes_of

AnyModule = TypeVar("AnyModule", bound=nn.Module)


@cache
def raft() -> Raft:
    state = read_state(locate("raft"))
    return ready(Raft(), {name.removeprefix("module."): tensor for name, tensor in state.items()}, "raft")


@cache
def inception() -> Inception:
    return ready(Inception(), read_state(locate("inception")), "inception")


@cache
def viclip() -> ViClip:
    return ready(ViClip(), read_state(locate("viclip")), "viclip")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file, read with `weights_only`; those under `model` if it has that key.

    Raises:
        WeightsError: the file is damaged or holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        # torch's own message advises `weights_only=False`, which would run code in the file.
        raise WeightsError(f"{path} is no plain file of tensors ({type(error).__name__}). Pull it again.") from error
    return state.get("model", state)


def ready(network: AnyModule, state: dict[str, Tensor], name: str) -> AnyModule:
    """Load strictly, on the default device.

    Raises:
        WeightsError: a tensor is missing, extra or misshapen; all of them are listed.
    """
    own = network.state_dict()
    counters = {key: own[key] for key in own if key.endswith("num_batches_tracked")}
    refuse_differences(
        shapes_of(own),
        shapes_of(state),
        what=f"`{name}`",
        remedy=entry(name).remedy,
        optional=set(counters),
    )
    network.load_state_dict(counters | state)
    return network.to(choose_device()).eval()
