"""Loads and saves the released FantasyID as it is published: base transformer and method in the same files.

Tensors are assigned strictly, by name and shape: those of a stock CogVideoX transformer go to the base, the others
to the method. A missing or misshapen tensor is an error. Unknown settings and tensors, which the published loader
ignores, are listed in a warning. Settings come from the folder's `config.json`. Nothing is downloaded.
"""

import json
import logging
import re
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from likeness.backbones.transformer_config import TRANSFORMERS
from likeness.errors import WeightsError
from likeness.files import read_json
from likeness.identity.mesh.spirals import MeshTopology
from likeness.methods.fantasy_id.model import FantasyID
from likeness.methods.fantasy_id.settings import RELEASED
from likeness.methods.fantasy_id.tensor_files import read_eva, read_shapes, read_shards
from likeness.weights.strict import find_altered, refuse_differences, shapes_of, shorten_list

_log = logging.getLogger(__name__)

EVA_FILE = Path("face_encoder", "EVA02_CLIP_L_336_psz14_s6B.pt")
SIZES_KEY = "face_modules"
"""Key of sizes that differ from the published ones (for small models); they are constants in the published code."""
_REMEDY = "Download the weights again with `likeness models pull fantasyid --preset research`."
_METHOD_KEYS = ("is_train_face", "is_kps", "cross_attn_interval", "LFE_num_tokens", "LFE_output_dim", "LFE_heads",
              "local_face_scale", SIZES_KEY)  # fmt: skip
_VERTEX, _PUBLISHED_VERTEX = r"descriptor\.vertex_encoder\.", "vertex_spiral_net."
_PUBLISHED_NAMES = (
    (r"descriptor\.abstractor\.(.+)", r"face_abstractor.\1"),
    (r"descriptor\.reducer\.(.+)", r"vertex_reducer.\1"),
    (_VERTEX + r"query", _PUBLISHED_VERTEX + "vtx_query"),
    (_VERTEX + r"narrow\.(.+)", _PUBLISHED_VERTEX + r"hw_down.\1"),
    (_VERTEX + r"convolutions\.([01])\.(.+)", _PUBLISHED_VERTEX + r"vtx_upsampler.de_layers.\1.conv.\2"),
    (_VERTEX + r"convolutions\.2\.(.+)", _PUBLISHED_VERTEX + r"vtx_upsampler.de_layers.2.\1"),
    (_VERTEX + r"output\.(.+)", _PUBLISHED_VERTEX + r"vtx_descriptor_head.0.\1"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.norm1\.(.+)", _PUBLISHED_VERTEX + r"transformer.layers.\1.0.norm.\2"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.to_qkv\.(.+)", _PUBLISHED_VERTEX + r"transformer.layers.\1.0.fn.to_qkv.\2"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.to_out\.(.+)", _PUBLISHED_VERTEX + r"transformer.layers.\1.0.fn.to_out.0.\2"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.norm2\.(.+)", _PUBLISHED_VERTEX + r"transformer.layers.\1.1.norm.\2"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.feed_forward\.0\.(.+)",
     _PUBLISHED_VERTEX + r"transformer.layers.\1.1.fn.net.0.\2"),
    (_VERTEX + r"fusion\.layers\.(\d+)\.feed_forward\.2\.(.+)",
     _PUBLISHED_VERTEX + r"transformer.layers.\1.1.fn.net.3.\2"),
    (r"layers\.(\d+)\.to_q_video\.(.+)", r"layer_attention.\1.to_q.\2"),
    (r"layers\.(\d+)\.to_kv_context\.(.+)", r"layer_attention.\1.to_kv.\2"),
    (r"layers\.(\d+)\.layer_model\.linear\.(.+)", r"layer_attention.\1.to_out.\2"),
    (r"layers\.(\d+)\.(norm[12])\.(.+)", r"layer_attention.\1.\2.\3"),
)  # fmt: skip


def find_transformer(folder: Path) -> Path:
    """Return the folder of the transformer's weights.

    Raises:
        WeightsError: There is none.
    """
    directory = next((folder / name for name in TRANSFORMERS if (folder / name / "config.json").is_file()), None)
    if directory is None:
        raise WeightsError(f"{folder} has neither transformer_ema/config.json nor transformer/config.json. {_REMEDY}")
    return directory


def read_settings(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the published `config.json` and return the settings of the stock transformer and of the method.

    Raises:
        WeightsError: It cannot be read, or it is not a config of the published FantasyID.
    """
    path = directory / "config.json"
    try:
        config = dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}. {_REMEDY}") from error
    stock_parameters = signature(CogVideoXTransformer3DModel.__init__).parameters
    base_settings = {name: value for name, value in config.items() if name in stock_parameters}
    if unknown := sorted(
        name for name in config.keys() - stock_parameters - set(_METHOD_KEYS) if not name.startswith("_")
    ):
        _log.warning("%s has settings that are not read: %s.", path, ", ".join(unknown))
    layers, interval = config.get("num_layers", 30), config.get("cross_attn_interval", 1)
    if not config.get("is_train_face"):
        raise WeightsError(
            f"`is_train_face` is {config.get('is_train_face')} in {path}; the published FantasyID has true. {_REMEDY}"
        )
    if config.get("is_kps"):
        raise WeightsError(
            f"`is_kps` is true in {path}: those weights need the face's key points drawn into a second frame, which "
            "the published FantasyID does not do and this version cannot. Use the published weights."
        )
    if not isinstance(interval, int) or interval < 1 or layers % interval:
        raise WeightsError(
            f"`cross_attn_interval` is {interval} in {path}, which does not divide the {layers} blocks. {_REMEDY}"
        )
    width = config.get("num_attention_heads", 30) * config.get("attention_head_dim", 64)
    method_settings = {
        **RELEASED,
        "width": width,
        "num_layers": layers,
        "layer_step": interval,
        "context_width": int(width / 3 * 2),
        **config.get(SIZES_KEY, {}),
    }
    return base_settings, method_settings


def published_names(method: FantasyID) -> dict[str, str]:
    """Map names of the method's tensors to the names in the published files, for all tensors that these contain."""
    step = method.config["layer_step"]
    names = {}
    for method_name in method.state_dict():
        for pattern, published_name in _PUBLISHED_NAMES:
            if match := re.fullmatch(pattern, method_name):
                names[method_name] = re.sub(
                    r"(?<=^layer_attention\.)\d+", lambda m: str(int(m[0]) // step), match.expand(published_name)
                )
    return names


def build_empty(folder: Path) -> tuple[CogVideoXTransformer3DModel, FantasyID]:
    """Build transformer and method from the folder's `config.json`; the method on the meta device."""
    base_settings, method_settings = read_settings(find_transformer(folder))
    # Sine position tables are not in the files, so a base with such tables is built with memory.
    with torch.device("meta") if base_settings.get("use_rotary_positional_embeddings") else nullcontext():
        transformer = CogVideoXTransformer3DModel(**base_settings)
    with torch.device("meta"):
        return transformer, FantasyID(**method_settings)


def load_published(
    folder: Path, mesh: MeshTopology, *, eva: Path | None = None, dtype: torch.dtype | None = None
) -> tuple[CogVideoXTransformer3DModel, FantasyID]:
    """Load a published folder, strictly.

    Args:
        folder: A folder with `transformer_ema` or `transformer`, and `face_encoder`.
        mesh: The mesh that was published with the code.
        eva: File of the image encoder, if it is not in `folder`.
        dtype: Of the weights; None keeps that of the files. The vertex branch is always in float32 where this is set.

    Raises:
        WeightsError: A file is missing or damaged, or tensors are missing or misshapen; all are listed.
    """
    directory = find_transformer(folder)
    transformer, method = build_empty(folder)
    names = published_names(method)
    method_shapes = shapes_of(method.state_dict())
    expected = shapes_of(transformer.state_dict()) | {
        published_name: method_shapes[method_name] for method_name, published_name in names.items()
    }
    file_shapes = read_shapes(directory, _REMEDY)
    if extra := sorted(file_shapes.keys() - expected.keys()):
        _log.warning("%s holds %d tensors that are not read: %s.", directory, len(extra), shorten_list(extra))
    refuse_differences(
        expected,
        {name: shape for name, shape in file_shapes.items() if name in expected},
        what=f"The released FantasyID at {directory}",
        altered=find_altered(directory),
        remedy=f"`cross_attn_interval` is {method.config['layer_step']} in its config.json. {_REMEDY}",
    )
    method_names = {published_name: method_name for method_name, published_name in names.items()}
    encoder = method.descriptor.vertex_encoder
    state = {f"descriptor.vertex_encoder.{name}": x for name, x in encoder.topology_state(mesh).items()}
    state |= read_eva(eva or folder / EVA_FILE, shapes_of(method.descriptor.face_encoder.state_dict()))
    for shard in read_shards(directory, _REMEDY):
        state |= {method_names[name]: tensor for name, tensor in shard.items() if name in method_names}
        base_state = {
            name: _cast(tensor, dtype)
            for name, tensor in shard.items()
            if name in expected and name not in method_names
        }
        # Not strict, because this is one file of several; names and shapes of all files were compared above.
        transformer.load_state_dict(base_state, strict=False, assign=True)
    cast_state = {
        name: _cast(tensor, torch.float32 if dtype and ".vertex_encoder." in name else dtype)
        for name, tensor in state.items()
    }
    method.load_state_dict(cast_state, strict=True, assign=True)
    return transformer.requires_grad_(False).eval(), method.requires_grad_(False).eval()


def save_published(
    folder: Path,
    transformer: CogVideoXTransformer3DModel,
    method: FantasyID,
    *,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write base and method in the published layout: `folder`/transformer, in one file or in shards with an index."""
    directory = folder / "transformer"
    directory.mkdir(parents=True, exist_ok=True)
    method_state = method.state_dict()
    state = {
        **transformer.state_dict(),
        **{
            published_name: method_state[method_name] for method_name, published_name in published_names(method).items()
        },
    }
    shards: list[dict[str, Tensor]] = [{}]
    remaining_bytes = max_shard_bytes
    for name, tensor in state.items():
        if tensor.nbytes > remaining_bytes and shards[-1]:
            shards.append({})
            remaining_bytes = max_shard_bytes
        shards[-1][name] = tensor.detach().cpu().contiguous()
        remaining_bytes -= tensor.nbytes
    stem, index = "diffusion_pytorch_model", {}
    for number, shard in enumerate(shards, start=1):
        shard_suffix = "" if len(shards) == 1 else f"-{number:05d}-of-{len(shards):05d}"
        save_file(shard, directory / f"{stem}{shard_suffix}.safetensors", metadata={"format": "pt"})
        index |= dict.fromkeys(shard, f"{stem}{shard_suffix}.safetensors")
    if len(shards) > 1:
        total = {"total_size": sum(tensor.nbytes for tensor in state.values())}
        record = json.dumps({"metadata": total, "weight_map": index}, indent=2)
        (directory / f"{stem}.safetensors.index.json").write_text(record)
    (directory / "config.json").write_text(json.dumps(_published_config(transformer, method), indent=2) + "\n")
    return directory


def _published_config(transformer: CogVideoXTransformer3DModel, method: FantasyID) -> dict[str, Any]:
    base_settings = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    width = method.config["width"]
    published = {**RELEASED, "width": width, "num_layers": method.config["num_layers"],
                 "layer_step": method.config["layer_step"], "context_width": int(width / 3 * 2)}  # fmt: skip
    settings = {name: _to_json_value(value) for name, value in method.config.items() if name in published}
    changed_settings = {name: value for name, value in settings.items() if value != _to_json_value(published[name])}
    return {
        "_class_name": "IDTransformer3DModel",
        **base_settings,
        "is_train_face": True,
        "is_kps": False,
        "cross_attn_interval": method.config["layer_step"],
        **({SIZES_KEY: changed_settings} if changed_settings else {}),
    }


def _to_json_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
