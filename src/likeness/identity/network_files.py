"""Files of the small convolutional networks: config.json with the constructor's arguments, and float16 weights."""

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import nn

from likeness.errors import WeightsError
from likeness.files import read_json, write_atomically, write_text
from likeness.weights.tensors import read_tensors

Network = TypeVar("Network", bound=nn.Module)


def save_network(network: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write the two files."""
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    with write_atomically(folder / "model.safetensors") as draft:
        save_file(tensors, draft)


def load_network(network_class: type[Network], folder: Path, name: str, *, recipe: str) -> Network:
    """Load the files of `save_network` strictly, as float32.

    Args:
        network_class: The class to build.
        folder: Folder of the files.
        name: What the network is called in an error.
        recipe: The recipe that trains one, for the error.

    Raises:
        WeightsError: The files are missing or damaged.
    """
    try:
        config = read_json(folder / "config.json")
        tensors = read_tensors(folder / "model.safetensors")
        network = network_class(**{**config, "widths": tuple(config["widths"])})
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, WeightsError) as error:
        raise WeightsError(f"No {name} at {folder} ({error}). Train one: `likeness train {recipe}`.") from error
    return network
