"""From a picture of a face and a sentence to a video, in one call.

`Likeness` holds a stock diffusers pipeline with a method attached and adds what users expect around it: faces are
read, settings are checked and recorded, the result is measured. It adds no step to the denoising loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likeness.backbones.load import load_pipeline
from likeness.errors import ConfigError
from likeness.generation.loading import load_adapter
from likeness.generation.presets import METHODS, Preset, find_preset, known
from likeness.generation.prompts import check_prompt
from likeness.generation.provenance import describe_reference, describe_software, describe_weights
from likeness.generation.references import FacePicture, read_faces
from likeness.generation.similarity import measure_similarity, refuse_other_engines
from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity
from likeness.records import Clip, Face
from likeness.weights import verify

StepCallback = Callable[[int, int], None]
"""Called after each denoising step with the number of steps done and of all steps."""


class GenerationSettings(BaseModel):
    """How a clip is made, apart from its prompt, face and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1, le=1000)
    """Denoising steps: time grows with them, and up to a point so does quality."""
    guidance: float = Field(ge=1, le=30)
    """Weight of the prompt; 1 is no guidance."""
    identity_scale: float = Field(default=1.0, ge=0, le=4)
    """Weight of the reference; 0 is the stock pipeline."""
    frames: int = Field(ge=1, le=257)
    """A multiple of eight plus one."""
    negative_prompt: str = ""
    """What the video should not show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One clip of a batch."""

    prompt: str
    references: tuple[Face, ...]
    seed: int = 0


class Likeness:
    """Make videos of a person.

    Example:
        likeness = Likeness.load()
        clip = likeness.generate("a woman img waves at the camera", faces=["me.jpg"], seed=7)
        clip.save("me.mp4")
    """

    def __init__(self, pipeline: Any, method: MagicMirror, preset: Preset, weights: dict[str, str]) -> None:
        self.pipeline = pipeline
        """A stock `CogVideoXPipeline` with `method` attached."""
        self.method = method
        self.preset = preset
        self.weights = weights
        """SHA-256 of every weight file, by name."""
        self.pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls,
        preset: str = "tiny",
        method: str = "magic_mirror",
        *,
        backbone: str | Path | None = None,
        adapter: str | Path | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a backbone and attach a method to it.

        Args:
            preset: Names backbone, licence and suitable settings.
            method: Names the way in which the face enters.
            backbone: A diffusers folder or hub name to use instead of the preset's.
            adapter: The method's folder or hub name; by default the one that lies in the backbone's folder.
            device: As torch names it; `auto` takes a GPU where there is one.

        Raises:
            ConfigError: The preset or method does not exist.
            WeightsError: Weights are absent or do not fit.
        """
        chosen = find_preset(preset)
        known("method", method, METHODS)
        source = str(backbone or chosen.backbone)
        folder = Path(adapter) if adapter else Path(source) / method
        if chosen.is_bundled and backbone is None:
            verify(chosen.name)
        # The adapter first: a backbone may have to be downloaded, in vain where there is no adapter.
        mirror = load_adapter(folder)
        pipeline = load_pipeline(source, device=device)
        mirror.attach(pipeline)
        return cls(pipeline, mirror, chosen, describe_weights({"backbone": source, "adapter": folder}))

    def generate(
        self,
        prompt: str,
        faces: FacePicture | Sequence[FacePicture],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        identity_scale: float = 1.0,
        frames: int | None = None,
        negative_prompt: str = "",
        on_step: StepCallback | None = None,
    ) -> Clip:
        """Make one clip of the person in `faces`.

        Args:
            prompt: A sentence with the trigger word after the word for the person: "a woman img waves".
            faces: One or several pictures of one person.
            seed: The same seed on the same machine gives the same video.
            steps: Denoising steps; by default the preset's.
            guidance: Weight of the prompt; by default the preset's.
            identity_scale: Weight of the reference; 0 is the stock pipeline.
            frames: A multiple of eight plus one; by default the preset's.
            negative_prompt: What the video should not show.
            on_step: Called after each step with the steps done and all steps.

        Raises:
            PromptError: The prompt has no trigger word, or is too long.
            FaceError: A picture shows no usable face, or several.
            ConfigError: A setting is out of range.
        """
        settings = self.settings(
            steps=steps,
            guidance=guidance,
            identity_scale=identity_scale,
            frames=frames,
            negative_prompt=negative_prompt,
        )
        check_prompt(prompt)
        request = GenerationRequest(prompt=prompt, references=read_faces(faces), seed=seed)
        return self.generate_many([request], settings, on_step=on_step)[0]

    def settings(self, **chosen: Any) -> GenerationSettings:
        """Fill what is None from the preset, and check all of it."""
        defaults = {name: getattr(self.preset, name) for name in ("steps", "guidance", "frames")}
        given = {name: value for name, value in chosen.items() if value is not None}
        try:
            settings = GenerationSettings(**(defaults | given))
        except ValidationError as error:
            problems = "; ".join(f"`{e['loc'][0]}` is {e['input']}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"{problems}. Leave it out to use the preset's value.") from error
        if settings.frames % 8 != 1:
            nearest = max(1, round((settings.frames - 1) / 8) * 8 + 1)
            raise ConfigError(
                f"`frames` is {settings.frames}; the backbone makes a multiple of eight plus one. Try {nearest}."
            )
        return settings

    def generate_many(
        self,
        requests: Sequence[GenerationRequest],
        settings: GenerationSettings | None = None,
        *,
        on_step: StepCallback | None = None,
        is_measured: bool = True,
    ) -> list[Clip]:
        """Make several clips in one batch: faster for each, and the same videos up to rounding.

        Every request needs the same number of references. `is_measured=False` leaves the similarity out.
        """
        settings = settings or self.settings()
        if is_measured:  # Before minutes of work, not after them.
            refuse_other_engines([face for request in requests for face in request.references])
        videos = self._denoise(requests, settings, on_step)
        clips = []
        for request, frames in zip(requests, videos, strict=True):
            similarity = measure_similarity(frames, request.references) if is_measured else None
            clips.append(
                Clip(
                    frames=frames,
                    fps=self.preset.fps,
                    prompt=request.prompt,
                    settings=self._record(request, settings, frames),
                    similarity=similarity,
                    references=request.references,
                )
            )
        return clips

    def _denoise(
        self,
        requests: Sequence[GenerationRequest],
        settings: GenerationSettings,
        on_step: StepCallback | None,
    ) -> np.ndarray:
        def report(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step is not None:
                on_step(step + 1, settings.steps)
            return tensors

        # Noise is drawn on the CPU, so that a seed means the same on every device.
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        identity = MagicMirrorIdentity.stack([self.method.encode(request.references) for request in requests])
        with torch.no_grad(), self.method.identity(identity, scale=settings.identity_scale):
            embeddings = self.method.prompt(
                [request.prompt for request in requests], negative_prompt=settings.negative_prompt
            )
            videos = self.pipeline(
                **embeddings,
                num_frames=settings.frames,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=generators,
                callback_on_step_end=report,
                output_type="np",
            ).frames
        return (np.asarray(videos) * 255).round().astype(np.uint8)

    def _record(
        self, request: GenerationRequest, settings: GenerationSettings, frames: np.ndarray
    ) -> dict[str, Any]:
        return {
            "seed": request.seed,
            **settings.model_dump(),
            "preset": self.preset.name,
            "method": type(self.method).__name__,
            "licence": self.preset.licence,
            "fps": self.preset.fps,
            "width": frames.shape[2],
            "height": frames.shape[1],
            "references": [describe_reference(face) for face in request.references],
            "versions": describe_software(),
            "weights_sha256": self.weights,
        }
