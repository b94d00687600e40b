"""Pictures of a person by PhotoMaker-V2 (arXiv:2312.04461v1) on SDXL, as in sets C and D of Magic Mirror's data.

It needs weights that do not ship: a diffusers folder of SDXL, the published PhotoMaker-V2 file, and `buffalo_l`, whose
licence allows non-commercial research only. The class word's embedding is replaced by the identity tokens after the
first part of the denoising steps, as in the published pipeline.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from likeness.errors import FaceError, WeightsError
from likeness.faces.engines.base import FaceEngine
from likeness.faces.engines.registry import load_engine
from likeness.faces.read import find_faces, prominence
from likeness.identity.encoders.photomaker import PhotoMakerEncoder
from likeness.media import resize_and_center_crop
from likeness.training.files.class_word import locate_class_word
from likeness.weights.strict import read_file_shapes
from likeness.weights.tensors import read_pickle, read_tensors

NEGATIVE = "asymmetry, worst quality, low quality, illustration, 3d, 2d, painting, cartoons, sketch"
_REMEDY = "Fetch the published file again: `likeness models pull photomaker-v2 --preset research`."


class PhotoMakerPairs:
    """A `PairGenerator` (`pairs.py`).

    Args:
        pipeline: A diffusers `StableDiffusionXLPipeline` with PhotoMaker's LoRA.
        encoder: PhotoMaker's encoder and fuse module.
        engine: The engine whose embeddings the encoder was trained with: `research`.
        num_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
        merge_share: Share of the steps that see the text alone.
        size_px: Side of the pictures.
    """

    name = "photomaker-v2"

    def __init__(
        self,
        pipeline: Any,
        encoder: PhotoMakerEncoder,
        engine: FaceEngine,
        *,
        num_steps: int = 50,
        guidance_scale: float = 5.0,
        merge_share: float = 0.2,
        size_px: int = 1024,
    ) -> None:
        self._pipeline, self._encoder, self._engine = pipeline, encoder, engine
        self._num_steps, self._guidance_scale, self._size_px = num_steps, guidance_scale, size_px
        self._merge_step = max(1, round(merge_share * num_steps))

    @classmethod
    def load(cls, sdxl: str | Path, photomaker: str | Path, *, device: str = "cuda") -> Self:
        """Load SDXL from a diffusers folder, and PhotoMaker-V2 from its published file.

        Raises:
            WeightsError: A file is missing, damaged, or of another model.
        """
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

        encoder = PhotoMakerEncoder.from_published(photomaker, dtype=torch.float16).to(device)
        try:
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                sdxl, torch_dtype=torch.float16, use_safetensors=True, local_files_only=True
            )
        except OSError as error:
            raise WeightsError(f"{sdxl} is no diffusers folder of SDXL ({error}). Fetch one, and name it.") from error
        pipeline.load_lora_weights(read_lora(photomaker), adapter_name="photomaker")
        pipeline.fuse_lora()
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), encoder, load_engine("research"))

    @torch.no_grad()
    def __call__(
        self, references: Sequence[np.ndarray], prompts: Sequence[str], *, seed: int, facts: Mapping[str, Any]
    ) -> list[np.ndarray]:
        """One picture for each prompt; see `PairGenerator`.

        Raises:
            FaceError: A reference has no face.
            PromptError: A prompt lacks the class word.
        """
        identity = self._encode_identity(references)
        noun = str(facts.get("class_word") or "person").partition(":")[0]
        return [
            self._draw(prompt, locate_class_word(prompt, noun).end, identity, seed + number)
            for number, prompt in enumerate(prompts)
        ]

    def _encode_identity(self, references: Sequence[np.ndarray]) -> Tensor:
        """(1, tokens, width)."""
        parameter = next(self._encoder.parameters())
        pixels, embeddings = [], []
        for number, picture in enumerate(references):
            found = find_faces(picture, self._engine)
            if not found:
                raise FaceError(
                    f"Reference {number + 1} of a generated pair has no face. Use a larger crop of the head."
                )
            embeddings.append(max(found, key=prominence).embedding)
            side_px = self._encoder.settings.image_size_px
            pixels.append(resize_and_center_crop(picture, side_px).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
        stacked = torch.from_numpy(np.stack(pixels))[None].to(parameter)
        return self._encoder(stacked, torch.from_numpy(np.stack(embeddings))[None].to(parameter)).id_tokens

    def _draw(self, prompt: str, end: int, identity: Tensor, seed: int) -> np.ndarray:
        pipeline = self._pipeline
        device = pipeline._execution_device
        plain, negative, pooled, negative_pooled = pipeline.encode_prompt(
            prompt=prompt, device=device, do_classifier_free_guidance=True, negative_prompt=NEGATIVE
        )
        text, marked_pooled, mask = encode_marked(pipeline, prompt, end, identity.shape[1])
        fused = self._encoder.fuse_module(text, mask, identity.to(text)).to(plain)

        def merge(running: Any, step: int, _: Any, __: dict[str, Any]) -> dict[str, Any]:
            if step != self._merge_step - 1:
                return {}
            if not running.do_classifier_free_guidance:
                return {"prompt_embeds": fused, "add_text_embeds": marked_pooled.to(pooled)}
            return {
                "prompt_embeds": torch.cat([negative, fused]),
                "add_text_embeds": torch.cat([negative_pooled, marked_pooled.to(pooled)]),
            }

        picture = pipeline(
            prompt_embeds=plain,
            negative_prompt_embeds=negative,
            pooled_prompt_embeds=pooled,
            negative_pooled_prompt_embeds=negative_pooled,
            num_inference_steps=self._num_steps,
            guidance_scale=self._guidance_scale,
            height=self._size_px,
            width=self._size_px,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=merge,
            output_type="np",
        ).images[0]
        return (picture * 255 + 0.5).clip(0, 255).astype(np.uint8)


def encode_marked(pipeline: Any, prompt: str, end: int, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Encode a prompt whose class word is repeated, once for each identity token.

    Args:
        pipeline: A `StableDiffusionXLPipeline`.
        prompt: A text.
        end: End of the class word in it.
        num_tokens: How often the word's last token stands there.

    Shapes:
        returns: (1, 77, width) states, (1, pooled_width), and (1, 77), True at the repeated token
    """
    states, pooled, mask = [], None, None
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        before = tokenizer(prompt[:end], add_special_tokens=False).input_ids
        after = tokenizer(prompt[end:], add_special_tokens=False).input_ids
        most = tokenizer.model_max_length
        ids = [tokenizer.bos_token_id, *before, *before[-1:] * (num_tokens - 1), *after][: most - 1]
        ids += [tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (most - len(ids))
        found = encoder(torch.tensor([ids], device=encoder.device), output_hidden_states=True)
        states.append(found.hidden_states[-2])
        pooled = found[0]  # Of the second encoder, which projects it.
        mask = torch.zeros(1, most, dtype=torch.bool, device=encoder.device)
        mask[0, len(before) : len(before) + num_tokens] = True
    assert pooled is not None
    assert mask is not None
    return torch.cat(states, dim=-1), pooled, mask


def read_lora(path: str | Path) -> dict[str, Tensor]:
    """The LoRA for SDXL in PhotoMaker-V2's file.

    Raises:
        WeightsError: The file cannot be read, or has none.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        prefix = "lora_weights."
        if not any(name.startswith(prefix) for name in read_file_shapes(path)):
            raise WeightsError(f"{path} has no LoRA weights. {_REMEDY}")
        found = read_tensors(path, only=lambda name: name.startswith(prefix), remedy=_REMEDY)
        return {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    parts = read_pickle(path, remedy=_REMEDY)
    if not isinstance(parts.get("lora_weights"), dict):
        raise WeightsError(f"{path} has no LoRA weights. {_REMEDY}")
    return parts["lora_weights"]
