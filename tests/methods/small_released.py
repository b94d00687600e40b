"""The released FantasyID at small size, with weights drawn by name, so that another program can draw the same.

`tests/golden/fantasy_id_released.safetensors` holds what the published code (commit c429092, its fixed sizes replaced
by those below, timm 1.0.31, OpenMesh 1.2.1) computed once with these very weights and inputs, and the mesh that it
read.
"""

import json
import math
import pickle
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from safetensors.torch import load_file
from scipy import sparse

GOLDEN = Path(__file__).parent.parent / "golden" / "fantasy_id_released.safetensors"
ROPE = get_3d_rotary_pos_embed(48, ((0, 0), (3, 4)), (3, 4), temporal_size=3)
CONFIG = {
    "_class_name": "IDTransformer3DModel", "num_attention_heads": 4, "attention_head_dim": 48, "in_channels": 8,
    "out_channels": 4, "time_embed_dim": 16, "text_embed_dim": 16, "num_layers": 4, "sample_width": 8,
    "sample_height": 6, "sample_frames": 9, "max_text_seq_length": 12, "use_rotary_positional_embeddings": True,
    "is_train_face": True, "is_kps": False, "cross_attn_interval": 2, "LFE_num_tokens": 32, "local_face_scale": 1.0,
    "face_modules": {
        "encoder_width": 32, "encoder_heads": 4, "image_size_px": 32, "patch_size_px": 4, "abstractor_hidden_width": 16,
        "face_width": 32, "num_vertices": [258, 65, 17], "vertex_widths": [8], "injection_width": 32, "head_width": 8,
    },
}  # fmt: skip


def draw(name, shape):
    """Normal numbers with a seed of the name: inputs as they are, layers so that widths keep their size."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    x = torch.randn(tuple(shape), generator=generator)
    if name.startswith("input"):
        return x
    if len(shape) == 3 and shape[0] == 1:
        return 0.5 * x
    if len(shape) > 1:
        return x * math.prod(shape[1:]) ** -0.5
    return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x


def draw_all(shapes):
    return {name: draw(name, shape) for name, shape in shapes.items()}


def golden():
    return load_file(GOLDEN)


def write_mesh(path):
    """Write the golden mesh in the published format: lists of arrays and of scipy's compressed columns."""
    given = {name: tensor.numpy() for name, tensor in golden().items() if name.startswith("mesh.")}
    vertices = [given[f"mesh.vertices.{level}"].astype(np.float64) for level in range(3)]
    kept = [given[f"mesh.kept.{level}"] for level in range(2)]
    down = [
        sparse.csc_matrix(
            (np.ones(len(each), np.float32), (np.arange(len(each)), each)), (len(each), len(vertices[level]))
        )
        for level, each in enumerate(kept)
    ]
    up = []
    for level in range(2):
        corners, shares = given[f"mesh.up_indices.{level}"], given[f"mesh.up_weights.{level}"]
        rows = np.repeat(np.arange(len(corners)), 3)
        size = (len(corners), len(vertices[level + 1]))
        up.append(sparse.csc_matrix((shares.ravel(), (rows, corners.ravel())), size))
    content = {
        "vertices": vertices,
        "face": [given[f"mesh.triangles.{level}"].astype(np.uint32) for level in range(3)],
        "adj": [sparse.csc_matrix((len(each), len(each)), dtype=np.float32) for each in vertices],
        "down_transform": down,
        "up_transform": up,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def write_config(folder, name="transformer", **changes):
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return place


def published_shapes(folder):
    """Names and shapes that the folder's config asks for."""
    from likeness.methods.fantasy_id.published import build_empty, published_names

    transformer, method = build_empty(folder)
    state = method.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
    return shapes | {new: tuple(state[old].shape) for old, new in published_names(method).items()}


def write_eva(folder, method):
    """Write EVA-CLIP's file, with blocks and a text encoder that nobody reads."""
    shapes = {f"visual.{name}": x.shape for name, x in method.descriptor.face_encoder.state_dict().items()}
    shapes |= {
        "visual.blocks.20.norm1.weight": (32,),
        "visual.rope.freqs_cos": (64, 8),
        "text.ln_final.bias": (4,),
    }
    path = folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(draw_all(shapes), path)
    return path
