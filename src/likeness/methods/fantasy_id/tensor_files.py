"""Tensors of the released FantasyID's files: safetensors or torch's pickles with weights only, in one file or in many."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from likeness.errors import WeightsError
from likeness.weights.files import component_problems
from likeness.weights.strict import Shapes, read_file_shapes, refuse_differences, shapes_of
from likeness.weights.tensors import read_pickle, read_tensors, refuse_not_finite

STEM = "diffusion_pytorch_model"
_EVA_REMEDY = (
    "It is EVA-CLIP's file of that name: bring it with `likeness models pull eva02-clip-l-336`, "
    "or put it there yourself."
)


def tensor_files(place: Path, remedy: str) -> list[Path]:
    """Files of a transformer, in the published code's order of preference: .bin, .safetensors, all shards there are.

    Raises:
        WeightsError: There are none, or the index names shards that are missing.
    """
    for single in (place / f"{STEM}.bin", place / f"{STEM}.safetensors"):
        if single.is_file():
            return [single]
    index = place / f"{STEM}.safetensors.index.json"
    if index.is_file() and (problems := component_problems(place, STEM)):
        raise WeightsError(f"The weights in {place} are not whole: {'; '.join(problems)}. {remedy}")
    shards = sorted(place.glob("*.safetensors")) or sorted(place.glob(f"{STEM}*.bin"))
    if not shards:
        raise WeightsError(f"{place} holds no {STEM}.safetensors or .bin, nor shards of it. {remedy}")
    return shards


def read_shapes(place: Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all files, before memory is filled.

    Raises:
        WeightsError: A file is damaged, or two of them hold the same tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in tensor_files(place, remedy):
        here = read_file_shapes(path) if path.suffix == ".safetensors" else shapes_of(read_pickle(path, remedy=remedy))
        if twice := sorted(here.keys() & shapes.keys()):
            raise WeightsError(
                f"{path} holds {len(twice)} tensors that another file in {place} holds too, {twice[0]} first. Keep the "
                "shards of one set alone."
            )
        shapes |= here
    return shapes


def read_parts(place: Path, remedy: str) -> Iterator[Mapping[str, Tensor]]:
    """The tensors file by file."""
    for path in tensor_files(place, remedy):
        if path.suffix == ".safetensors":
            yield read_tensors(path, remedy=remedy)
        else:
            state = read_pickle(path, remedy=remedy)
            refuse_not_finite(state, what=str(path), remedy=remedy)
            yield state


def read_eva(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """What is read of EVA-CLIP's published file, under our names: the blocks that are built, and no text encoder.

    Raises:
        WeightsError: It is missing or damaged, or those tensors are not in it.
    """
    if not path.is_file():
        raise WeightsError(f"{path}, the encoder of the pictures, is missing. {_EVA_REMEDY}")
    content: Any = read_pickle(path, remedy=_EVA_REMEDY)
    content = next((content[key] for key in ("model", "module", "state_dict") if key in content), content)
    found = {
        name.removeprefix("module.").removeprefix("visual."): tensor
        for name, tensor in content.items()
        if name.removeprefix("module.").startswith("visual.")
    }
    # The blocks behind the features that are read, and their head, are of no use here.
    used = {name: tensor for name, tensor in found.items() if name in expected}
    refuse_differences(expected, shapes_of(used), what=str(path), remedy=_EVA_REMEDY)
    refuse_not_finite(used, what=str(path), remedy=_EVA_REMEDY)
    return {f"descriptor.face_encoder.{name}": tensor for name, tensor in used.items()}
