"""Reads the released FantasyID's tensors: safetensors or torch's pickles (weights only), in one file or several."""

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
    "It is EVA-CLIP's file of that name: download it with `likeness models pull eva02-clip-l-336`, or put it there."
)


def tensor_files(directory: Path, remedy: str) -> list[Path]:
    """Return the files of a transformer, in the published code's order of preference: .bin, .safetensors, all shards.

    Raises:
        WeightsError: There are none, or shards of the index are missing.
    """
    for single in (directory / f"{STEM}.bin", directory / f"{STEM}.safetensors"):
        if single.is_file():
            return [single]
    index = directory / f"{STEM}.safetensors.index.json"
    if index.is_file() and (problems := component_problems(directory, STEM)):
        raise WeightsError(f"The weights in {directory} are not whole: {'; '.join(problems)}. {remedy}")
    shards = sorted(directory.glob("*.safetensors")) or sorted(directory.glob(f"{STEM}*.bin"))
    if not shards:
        raise WeightsError(f"{directory} holds no {STEM}.safetensors or .bin, nor shards of it. {remedy}")
    return shards


def read_shapes(directory: Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of all tensors without the tensors.

    Raises:
        WeightsError: A file is damaged, or two files contain the same tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in tensor_files(directory, remedy):
        file_shapes = (
            read_file_shapes(path) if path.suffix == ".safetensors" else shapes_of(read_pickle(path, remedy=remedy))
        )
        if duplicates := sorted(file_shapes.keys() & shapes.keys()):
            raise WeightsError(
                f"{path} holds {len(duplicates)} tensors that another file in {directory} holds too, "
                f"{duplicates[0]} first. Keep the shards of one set only."
            )
        shapes |= file_shapes
    return shapes


def read_shards(directory: Path, remedy: str) -> Iterator[Mapping[str, Tensor]]:
    """Read the tensors file by file."""
    for path in tensor_files(directory, remedy):
        if path.suffix == ".safetensors":
            yield read_tensors(path, remedy=remedy)
        else:
            state = read_pickle(path, remedy=remedy)
            refuse_not_finite(state, what=str(path), remedy=remedy)
            yield state


def read_eva(path: Path, expected: Shapes) -> dict[str, Tensor]:
    """Read the blocks of EVA-CLIP's published image encoder that are used, under the method's names.

    Raises:
        WeightsError: The file is missing or damaged, or tensors are missing or misshapen.
    """
    if not path.is_file():
        raise WeightsError(f"{path}, the encoder of the pictures, is missing. {_EVA_REMEDY}")
    content: Any = read_pickle(path, remedy=_EVA_REMEDY)
    content = next((content[key] for key in ("model", "module", "state_dict") if key in content), content)
    visual = {
        name.removeprefix("module.").removeprefix("visual."): tensor
        for name, tensor in content.items()
        if name.removeprefix("module.").startswith("visual.")
    }
    # The head and the blocks behind the features are not used.
    encoder_state = {name: tensor for name, tensor in visual.items() if name in expected}
    refuse_differences(expected, shapes_of(encoder_state), what=str(path), remedy=_EVA_REMEDY)
    refuse_not_finite(encoder_state, what=str(path), remedy=_EVA_REMEDY)
    return {f"descriptor.face_encoder.{name}": tensor for name, tensor in encoder_state.items()}
