"""CogVideoX at small size in folders laid out as on the hub: every key of the published configs, weights in shards.

The keys and the values that differ between the bases are those of diffusers' conversion script and of published
copies of the configs; only sizes are smaller. One text encoder and one tokenizer serve all of them.
"""

import json
import shutil
from dataclasses import dataclass, field

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

DDIM, DPM = "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"
LATENT_CHANNELS = 4
SIDE = 4
"""Of the videos, in latent pixels."""
TRANSFORMER = {
    "_class_name": "CogVideoXTransformer3DModel", "_diffusers_version": "0.30.0.dev0",
    "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 16, "dropout": 0.0,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": LATENT_CHANNELS, "max_text_seq_length": 24,
    "norm_elementwise_affine": True, "norm_eps": 1e-05, "num_attention_heads": 2, "num_layers": 2,
    "out_channels": LATENT_CHANNELS, "patch_size": 2, "sample_frames": 49, "sample_height": SIDE, "sample_width": SIDE,
    "spatial_interpolation_scale": 1.875, "temporal_compression_ratio": 4, "temporal_interpolation_scale": 1.0,
    "text_embed_dim": 16, "time_embed_dim": 8, "timestep_activation_fn": "silu",
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKLCogVideoX", "_diffusers_version": "0.30.0.dev0", "act_fn": "silu",
    "block_out_channels": [8, 8, 8, 8], "down_block_types": ["CogVideoXDownBlock3D"] * 4, "force_upcast": True,
    "in_channels": 3, "latent_channels": LATENT_CHANNELS, "latents_mean": None, "latents_std": None,
    "layers_per_block": 1, "norm_eps": 1e-06, "norm_num_groups": 2, "out_channels": 3, "sample_height": 8 * SIDE,
    "sample_width": 8 * SIDE, "scaling_factor": 0.7, "shift_factor": None, "temporal_compression_ratio": 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4, "use_post_quant_conv": False, "use_quant_conv": False,
}  # fmt: skip
SCHEDULER = {
    "_diffusers_version": "0.30.0.dev0", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "clip_sample_range": 1.0, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "sample_max_value": 1.0, "set_alpha_to_one": True, "snr_shift_scale": 1.0,
    "steps_offset": 0, "timestep_spacing": "trailing", "trained_betas": None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a published base has of its own."""

    pipeline: str = "CogVideoXPipeline"
    scheduler: str
    transformer: dict = field(default_factory=dict)
    vae: dict = field(default_factory=dict)
    snr_shift_scale: float = 1.0


LAYOUTS = {
    "cogvideox-2b": Layout(
        scheduler=DDIM,
        transformer={"use_rotary_positional_embeddings": False},
        vae={"scaling_factor": 1.15258426},
        snr_shift_scale=3.0,
    ),
    "cogvideox-5b": Layout(scheduler=DPM, transformer={"use_learned_positional_embeddings": False}),
    "cogvideox-5b-i2v": Layout(
        pipeline="CogVideoXImageToVideoPipeline",
        scheduler=DDIM,
        transformer={"in_channels": 2 * LATENT_CHANNELS, "use_learned_positional_embeddings": True},
    ),
    "cogvideox1.5-5b": Layout(
        scheduler=DDIM,
        transformer={
            "ofs_embed_dim": None,
            "patch_bias": False,
            "patch_size_t": 2,
            "sample_frames": 81,
            "use_learned_positional_embeddings": False,
        },
        vae={"invert_scale_latents": True},
    ),
}


def write_layout(name, place, *, text_encoder, tokenizer_folder, **transformer):
    """Write the base `name` with random weights to the folder `place`; further arguments change the transformer."""
    layout = LAYOUTS[name]
    torch.manual_seed(0)
    _write(place / "transformer", CogVideoXTransformer3DModel, TRANSFORMER | layout.transformer | transformer)
    _write(place / "vae", AutoencoderKLCogVideoX, VAE | layout.vae)
    text_encoder.save_pretrained(place / "text_encoder", max_shard_size=_third(text_encoder))
    shutil.copytree(tokenizer_folder, place / "tokenizer")
    scheduler = SCHEDULER | {"_class_name": layout.scheduler, "snr_shift_scale": layout.snr_shift_scale}
    _write_json(place / "scheduler" / "scheduler_config.json", scheduler)
    index = {
        "_class_name": layout.pipeline,
        "_diffusers_version": "0.30.0.dev0",
        "scheduler": ["diffusers", layout.scheduler],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    _write_json(place / "model_index.json", index)
    return place


def _write(place, kind, config):
    module = kind.from_config(config)
    module.save_pretrained(place, max_shard_size=_third(module))
    assert len(list(place.glob("*-of-*.safetensors"))) > 1
    _write_json(place / "config.json", config)


def _third(module):
    return sum(tensor.nbytes for tensor in module.state_dict().values()) // 3


def _write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
