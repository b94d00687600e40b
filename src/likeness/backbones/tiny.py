"""Builds the tiny backbone from CogVideoX's own classes with small configurations.

`build_pipeline` builds a stock pipeline, and `save_pipeline` saves a folder that
`diffusers.CogVideoXPipeline.from_pretrained` loads without this package.
"""

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from einops import rearrange, reduce
from pydantic import Field, model_validator
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers import decoders as token_decoders
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from likeness import weights
from likeness.config import Settings
from likeness.errors import ConfigError

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


class VaeSettings(Settings):
    """The VAE, with CogVideoX's compression: 8 times in space, 4 times in time."""

    widths: tuple[int, int, int, int] = (16, 32, 64, 96)
    """Channels at full, half, quarter and eighth resolution. Speed depends on the first."""
    layers_per_block: int = 1
    """Residual layers at each resolution; the decoder has one more."""
    latent_channels: int = 16
    """Channels of a latent frame."""
    norm_num_groups: int = 8
    """Groups of each group norm; divides every width."""
    size_px: int = 64
    """Side of a frame."""


class TransformerSettings(Settings):
    """The transformer."""

    num_heads: int = 6
    """Attention heads of `head_width` channels each."""
    head_width: int = 32
    """A multiple of 16, which the rotary embedding divides among time, height and width."""
    num_layers: int = 6
    """Blocks."""
    time_width: int = 128
    """Channels of the time embedding for the modulation of all blocks."""
    text_length: int = 32
    """Text tokens, padding included."""
    size_px: int = 64
    """Side of a frame."""
    patch_size: int = Field(default=2, ge=1)
    """Side of a token in latent pixels: CogVideoX's 2, or 1 for four times as many tokens."""
    num_frames: int = 17
    """Frames of a clip, 1 + a multiple of 4."""

    @model_validator(mode="after")
    def _has_whole_patches(self) -> Self:
        if self.size_px // 8 % self.patch_size:
            raise ValueError(
                f"a frame of {self.size_px} px has {self.size_px // 8} latent pixels a side, which patch_size = "
                f"{self.patch_size} does not divide; choose 1 or 2"
            )
        return self


class TextSettings(Settings):
    """The T5 encoder."""

    width: int = 128
    """Channels of a text token."""
    num_layers: int = 2
    """Blocks."""
    num_heads: int = 4
    """Attention heads."""
    hidden_width: int = 256
    """Channels inside the gated feed-forward layers."""


def build_vae(settings: VaeSettings) -> AutoencoderKLCogVideoX:
    """Build CogVideoX's VAE with these widths (`block_out_channels` in diffusers), with random weights."""
    widths: Any = settings.widths  # typed too narrowly by diffusers
    return AutoencoderKLCogVideoX(
        block_out_channels=widths,
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_num_groups,
        sample_height=settings.size_px,
        sample_width=settings.size_px,
        scaling_factor=1.0,
    )


@torch.no_grad()
def whiten(vae: AutoencoderKLCogVideoX, mean: Tensor, covariance: Tensor, min_variance: float) -> None:
    """Change a VAE so that its latents have zero mean and nearly unit covariance; decoded frames stay the same.

    Diffusion adds equal noise in every direction of a latent pixel, so directions with small variance are resolved
    later in sampling, and faces depend on those. The whitening, (covariance + min_variance)^(-1/2) after subtracting
    the mean, is merged into the encoder's last layer and into the decoder's layers that read latents. At frame borders
    the zero padding of the decoder's first convolution now has another meaning, so the decoder needs a short
    fine-tuning.

    Shapes:
        mean: (latent_channels,), covariance: (latent_channels, latent_channels), of the unscaled latents of one pixel

    Args:
        vae: Changed in place; its scaling factor becomes 1.
        mean: Mean of the latents of the data.
        covariance: Their covariance.
        min_variance: Variance below which a direction is not amplified; about that of the encoder's noise.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    roots = (values.clamp(min=0) + min_variance).sqrt()
    to_white = ((vectors / roots) @ vectors.T).float()
    from_white = ((vectors * roots) @ vectors.T).float()
    last: Any = vae.encoder.conv_out.conv
    channels = len(mean)
    # The encoder's last layer gives means, then log-variances; the latter get one common shift, an approximation.
    last.weight[:channels] = torch.einsum("ij,jcthw->icthw", to_white, last.weight[:channels])
    last.bias[:channels] = to_white @ (last.bias[:channels] - mean)
    last.bias[channels:] -= values.clamp(min=0).add(min_variance).log().mean().float()
    for layer in _reads_latents(vae):
        summed = layer.weight.sum(dim=(2, 3, 4))
        layer.bias += summed @ mean
        layer.weight.copy_(torch.einsum("ojthw,ji->oithw", layer.weight, from_white))
    vae.register_to_config(scaling_factor=1.0)


def _reads_latents(vae: Any) -> list[Any]:
    norms = [part for part in vae.decoder.modules() if type(part).__name__ == "CogVideoXSpatialNorm3D"]
    return [
        vae.decoder.conv_in.conv,
        *(layer.conv for norm in norms for layer in (norm.conv_y, norm.conv_b)),
    ]


def build_transformer(settings: TransformerSettings, text: TextSettings) -> CogVideoXTransformer3DModel:
    """Build CogVideoX's transformer with rotary positions, for latents of 1/8 of the frame, with random weights."""
    return CogVideoXTransformer3DModel(
        num_attention_heads=settings.num_heads,
        attention_head_dim=settings.head_width,
        num_layers=settings.num_layers,
        time_embed_dim=settings.time_width,
        text_embed_dim=text.width,
        max_text_seq_length=settings.text_length,
        sample_width=settings.size_px // 8,
        sample_height=settings.size_px // 8,
        sample_frames=settings.num_frames,
        patch_size=settings.patch_size,
        use_rotary_positional_embeddings=True,
    )


def refine_patches(tensors: dict[str, Tensor], patch_size: int) -> dict[str, Tensor]:
    """Convert the weights of a CogVideoX transformer to patches of `patch_size`, a divisor of the current size.

    For a constant patch, each smaller patch gives the same token as before, and the output of each is the mean over
    the old patch. Differences between the new patches have to be trained.

    Args:
        tensors: The transformer's state dict, with `patch_embed.proj.weight` (width, channels, patch, patch),
            `proj_out.weight` (channels * patch * patch, width) and `proj_out.bias` (channels * patch * patch).
        patch_size: The new side of a token, in latent pixels.

    Raises:
        ConfigError: The weights' patch size is not a multiple of `patch_size`.
    """
    patches = tensors["patch_embed.proj.weight"]
    old = patches.shape[-1]
    if old % patch_size:
        raise ConfigError(
            f"The weights have patches of {old} latent pixels, which cannot be cut into patches of {patch_size}. "
            f"Choose a patch_size that divides {old}."
        )
    sizes = {"ys": patch_size, "xs": patch_size}
    refined = {"patch_embed.proj.weight": reduce(patches, "w c (ys y) (xs x) -> w c ys xs", "sum", **sizes)}
    for name in ("proj_out.weight", "proj_out.bias"):
        cells = rearrange(tensors[name], "(c y x) ... -> c y x ...", y=old, x=old)
        means = reduce(cells, "c (ys y) (xs x) ... -> c ys xs ...", "mean", **sizes)
        refined[name] = rearrange(means, "c y x ... -> (c y x) ...")
    return {**tensors, **refined}


def build_text_encoder(settings: TextSettings, tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """Build a T5 v1.1 encoder without dropout for the vocabulary of `tokenizer`, with random weights."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=settings.width,
        d_kv=settings.width // settings.num_heads,
        d_ff=settings.hidden_width,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a pipeline folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def build_tokenizer(sentences: Iterable[str]) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer: the words of `sentences`, and single letters for other words.

    As in T5, the padding token is 0, the end token is 1, and there is no start token.
    """
    pieces = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    words = {piece for text in sentences for piece, _ in pieces.pre_tokenize_str(text.lower())}
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    order = dict.fromkeys([PAD, EOS, UNKNOWN, *letters, *(f"##{letter}" for letter in letters), *sorted(words)])
    vocabulary = {piece: number for number, piece in enumerate(order)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = token_decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=226,  # CogVideoX's default text length.
        padding_side="right",
    )


def build_scheduler(snr_shift_scale: float = 1.0) -> CogVideoXDPMScheduler:
    """CogVideoX-5B's noise schedule (v-prediction, zero terminal SNR, trailing timesteps) with its authors' DPM solver.

    The solver adds noise between steps, which corrects errors of a small model in earlier steps
    (`benchmarks/solvers.py` compares it with DDIM). The SNR of every timestep is divided by `snr_shift_scale`; below
    1, more steps fall into the range of SNR that matters for frames of few latent pixels.
    """
    return CogVideoXDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift_scale,
        timestep_spacing="trailing",
    )


def build_pipeline(
    vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any, *, snr_shift_scale: float = 1.0
) -> CogVideoXPipeline:
    """Build the stock pipeline of these models, with `build_scheduler(snr_shift_scale)` and without a progress bar."""
    pipe = CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer,
        scheduler=build_scheduler(snr_shift_scale),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_pipeline(pipe: CogVideoXPipeline, folder: Path) -> None:
    """Save a pipeline with checksums, transformer and VAE in float16; `pipe` is not changed."""
    # The text encoder stays float32: unlike diffusers, transformers would load float16 weights as float16.
    fp16_models = {"transformer": to_float16(pipe.transformer), "vae": to_float16(pipe.vae)}
    CogVideoXPipeline(**{**pipe.components, **fp16_models}).save_pretrained(folder)
    weights.write_checksums(folder)


def to_float16(module: Any) -> Any:
    """A float16 copy of a diffusers model."""
    copy = type(module).from_config(module.config).half()
    copy.load_state_dict(module.state_dict())
    return copy
