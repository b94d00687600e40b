"""The cost that the released FantasyID adds to its image-to-video base: products, counted at true size.

Everything runs on torch's meta device (`overhead.py` defines how operators are counted). As released, the identity
is in both CFG rows. Operations that depend on the person alone are counted apart because they run once.

    python benchmarks/released.py --json released.json
"""

import sys
from typing import Any

import torch
from claims import Benchmark
from diffusers import CogVideoXTransformer3DModel
from overhead import COGVIDEOX_5B, LATENT, TEXT_TOKENS, count
from torch import nn

from likeness.identity.tokens import PersonTokens
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.fantasy_id.settings import RELEASED


def build() -> tuple[CogVideoXTransformer3DModel, FantasyID]:
    """CogVideoX-5B-I2V, which has twice the input channels, and the method with an injection behind each block."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(**{**COGVIDEOX_5B, "in_channels": 32})
        sizes: dict[str, Any] = {"width": 3072, "num_layers": COGVIDEOX_5B["num_layers"]}
        method = FantasyID(**sizes, **RELEASED)
    nn.Module.to(transformer, torch.bfloat16).requires_grad_(False).eval()
    nn.Module.to(method, torch.bfloat16).requires_grad_(False).eval()
    return transformer, method


def main() -> int:
    """Count, claim, and print the table."""
    benchmark = Benchmark("released", seed=0)
    benchmark.arguments()
    transformer, method = build()
    empty = torch.empty(2, LATENT[0], 32, *LATENT[2:], dtype=torch.bfloat16, device="meta")
    head_width = COGVIDEOX_5B["attention_head_dim"]
    video_tokens = LATENT[0] * LATENT[2] * LATENT[3] // 4
    inputs: dict[str, Any] = {
        "hidden_states": empty,
        "encoder_hidden_states": empty.new_empty(2, TEXT_TOKENS, COGVIDEOX_5B["text_embed_dim"]),
        "timestep": torch.empty(2, dtype=torch.int64, device="meta"),
        "image_rotary_emb": tuple(torch.empty(video_tokens, head_width, device="meta") for _ in range(2)),
    }
    base = count(lambda: transformer(**inputs)).flops
    pixels = empty.new_empty(1, 1, 3, 512, 512)
    vertices = torch.empty(1, RELEASED["num_vertices"][0], 3, device="meta")
    context: list[torch.Tensor] = []
    read = count(lambda: context.append(method.descriptor(pixels, vertices))).flops
    method.attach(transformer)
    with method.conditioned(PersonTokens(face_tokens=context[0])):
        first = count(lambda: transformer(**inputs)).flops
        later = count(lambda: transformer(**inputs)).flops
    benchmark.note("base_tflop", base / 1e12)
    benchmark.note("reading_a_person_tflop", read / 1e12)
    benchmark.note("keys_and_values_once_tflop", (first - later) / 1e12)
    benchmark.claim("released.layers", len(method.layers), ">=", 42)
    benchmark.claim("released.context_tokens", context[0].shape[1], ">=", 115)
    benchmark.claim("released.flop_ratio", later / base, "<=", 1.0585)
    return benchmark.finish()


if __name__ == "__main__":
    sys.exit(main())
