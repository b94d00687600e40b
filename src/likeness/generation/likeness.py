"""Generate a video from a picture of a face and a prompt, in one call.

`Likeness` holds a stock diffusers pipeline with a method attached. It reads faces, checks and records settings, and
measures identity similarity. The denoising loop is the pipeline's own.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from likeness import weights
from likeness.adapters.conditioning.regions import NormalizedBox
from likeness.backbones.load import load_pipeline
from likeness.backbones.transformer_config import FPS_1_5, frame_size_px, has_temporal_patches, refuse_frames
from likeness.generation.inputs.multi_person import (
    PeopleInput,
    assign_regions,
    build_request,
    person_boxes,
    split_people,
)
from likeness.generation.inputs.prompts import add_style, check_prompt
from likeness.generation.inputs.references import PersonInput
from likeness.generation.inputs.request import GenerationRequest
from likeness.generation.inputs.search import SeedSearch
from likeness.generation.inputs.settings import GenerationOptions, GenerationSettings, resolve_settings
from likeness.generation.loading.load import load_adapter, verify_weights
from likeness.generation.loading.presets import METHODS, Preset, find_preset, require_known
from likeness.generation.loading.published_fantasy_id import load_published_preset
from likeness.generation.loading.resolve_weights import adapter_folder, locate_backbone, uses_published_checkpoint
from likeness.generation.outputs.destinations import check_enlarge_factor
from likeness.generation.outputs.provenance import describe_reference, describe_software, describe_weights
from likeness.generation.outputs.similarity import measure_clip, refuse_other_engines
from likeness.generation.sampling.best_of import choose_best
from likeness.generation.sampling.memory_plan import GpuMemory, find_gpu
from likeness.generation.sampling.sample import Judge, StepCallback, check_steps, denoise
from likeness.generation.sampling.shape_control import use_shape_source
from likeness.methods.method import Method
from likeness.records import Clip

if TYPE_CHECKING:
    from likeness.generation.stories.render import StoryCallback, StoryResult
    from likeness.generation.stories.story_file import Story

__all__ = ["GenerationRequest", "GenerationSettings", "Likeness", "StepCallback"]


class Likeness:
    """Make videos of a person.

    Example:
        likeness = Likeness.load()
        clip = likeness.generate("a woman img waves at the camera", faces=["me.jpg"], seed=7)
        clip.save("me.mp4")
    """

    def __init__(self, pipeline: Any, method: Method, preset: Preset, checksums: dict[str, str]) -> None:
        self.pipeline = pipeline
        """A stock `CogVideoXPipeline` with `method` attached."""
        self.method = method
        self.preset = preset
        self.weights = checksums
        """SHA-256 of every weight file, by name."""
        self.memory: GpuMemory | None = None
        """The plan for the GPU's memory; None on a CPU."""
        self.pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls,
        preset: str = "tiny",
        method: str | type[Method] = "magic_mirror",
        *,
        backbone: str | Path | None = None,
        adapter: str | Path | None = None,
        device: str = "auto",
        memory_gb: float | None = None,
        verify: bool = False,
    ) -> Self:
        """Load a backbone and attach a method to it.

        Args:
            preset: Name of a backbone with its licence and default settings.
            method: Name of an identity method, or the class of a custom one.
            backbone: A diffusers folder or hub name to use instead of the preset's.
            adapter: Folder or hub name of the method's weights; by default the folder inside the backbone's.
            device: A torch device; `auto` uses a GPU if there is one.
            memory_gb: Plan for a GPU with this much memory; by default for the present one.
            verify: Read every byte of the weights and compare checksums first; by default a large file is read again
                only if its size or time changed.

        Raises:
            ConfigError: The preset or method does not exist.
            WeightsError: Weights are absent or do not fit.
            ResourceError: The GPU's memory does not suffice for any plan.
        """
        chosen = find_preset(preset)
        if isinstance(method, str):
            require_known("method", method, METHODS)
        if verify:
            verify_weights(chosen, method, backbone, adapter)
        if isinstance(method, str) and uses_published_checkpoint(chosen, method, backbone, adapter):
            gpu = find_gpu(device, memory_gb)
            loaded = load_published_preset(chosen, backbone, device=device, moves_to_device=gpu is None)
            return cls._from_pipeline(*loaded, gpu=gpu)
        folder = adapter_folder(method, adapter, backbone or chosen.backbone)
        if chosen.is_bundled and backbone is None and not verify:
            weights.verify(chosen.name)
        # The adapter first: without one, downloading a backbone would be useless.
        loaded_method = load_adapter(folder, method)
        source = str(backbone or locate_backbone(chosen))
        gpu = find_gpu(device, memory_gb)
        pipeline = load_pipeline(source, device=device, moves_to_device=gpu is None)
        checksums = describe_weights({"backbone": source, "adapter": folder})
        return cls._from_pipeline(pipeline, loaded_method, chosen, checksums, gpu=gpu)

    @classmethod
    def _from_pipeline(cls, pipeline: Any, method: Any, preset: Preset, checksums: dict[str, str], *, gpu: Any) -> Self:
        """Attach a method, and apply a memory plan if there is a GPU."""
        method.attach(pipeline)
        if has_temporal_patches(pipeline.transformer.config):
            preset = preset.model_copy(update={"fps": FPS_1_5})
        likeness = cls(pipeline, method, preset, checksums)
        likeness.memory = None if gpu is None else GpuMemory(pipeline, method, gpu, frames=preset.frames)
        return likeness

    def generate(
        self,
        prompt: str,
        faces: PeopleInput,
        *,
        seed: int = 0,
        best_of: int = 1,
        min_similarity: float | None = None,
        regions: Sequence[NormalizedBox] | None = None,
        on_step: StepCallback | None = None,
        **choices: Unpack[GenerationOptions],
    ) -> Clip:
        """Make one clip of the person in `faces`, or one picture with `frames=1`.

        Args:
            prompt: A sentence with the trigger word after the class word: "a woman img waves".
                Several people are numbered: "a man img1 shakes hands with a woman img2".
            faces: One or several pictures of one person, or a saved `Character`. For several people a list of those,
                `[["bob.jpg"], ["ann.jpg"]]`.
            seed: The same seed on the same machine gives the same video.
            best_of: Try this many seeds and return the clip with the highest similarity.
            min_similarity: Stop at the first clip with a `similarity.score` of at least this.
            regions: The region of each of several people: (left, top, right, bottom) as shares of the frame. By default
                vertical strips, from left to right in the order of the prompt.
            on_step: Called after each step with the number of steps done and of all steps.
            **choices: Any field of `GenerationSettings`: `steps`, `guidance`, `frames`, `negative_prompt`, `style`,
                `identity_scale`, `identity_start`, `identity_end`, `identity_blocks`, `identity_branch`, `shape`,
                `face_shape`.

        Raises:
            PromptError: The prompt has no trigger word, or is too long.
            FaceError: A picture shows no usable face, or several.
            ConfigError: A setting is unknown or out of range.
        """
        settings = self.settings(**choices)
        search = SeedSearch.of(best_of, min_similarity)
        search.check_seed(seed)
        people = split_people(faces)
        check_prompt(prompt, len(people), method=type(self.method))
        request = build_request(prompt, people, seed=seed, boxes=regions)
        return self.generate_best(request, settings, search, on_step=on_step)

    def generate_best(
        self,
        request: GenerationRequest,
        settings: GenerationSettings,
        search: SeedSearch,
        *,
        on_step: StepCallback | None = None,
    ) -> Clip:
        """Make the clip of a request, or the best of several seeds if `search` asks for that."""
        if search.is_needed:
            return choose_best(self.generate_many, request, settings, search, on_step=on_step)
        return self.generate_many([request], settings, on_step=on_step)[0]

    def settings(self, **choices: Unpack[GenerationOptions]) -> GenerationSettings:
        """Complete settings with the defaults of preset and method, and check them.

        Raises:
            ConfigError: A setting is unknown, out of range, contradicts another or does not suit the scheduler.
        """
        overrides = {name: value for name, value in choices.items() if value is not None}
        scale = self.preset.identity_scales.get(type(self.method).__name__, 1.0)
        defaults = {"identity_branch": self.method.branch, "identity_scale": scale}
        settings = resolve_settings(self.preset, {**defaults, **overrides})
        check_steps(self.pipeline.scheduler, settings.steps)
        self.check_frames(settings.frames)
        return settings

    def check_frames(self, frames: int) -> None:
        """Refuse a number of frames that the backbone does not make.

        Raises:
            ConfigError: It has learned positions for another number.
        """
        refuse_frames(self.pipeline.transformer.config, frames)

    def check_length(self, prompt: str, num_references: int) -> None:
        """Refuse a prompt that is too long together with so many references.

        Raises:
            PromptError: It is too long.
        """
        limit = self.pipeline.transformer.config.max_text_seq_length
        self.method.tokenize([prompt], self.pipeline.tokenizer, num_references=num_references, max_length=limit)

    def check_enlarge_factor(self, frames: int, enlarge: int | None, *, num_people: int = 1) -> None:
        """Refuse a factor of enlargement that exceeds the limits of memory and size.

        Raises:
            ConfigError: `enlarge` is too large.
        """
        if enlarge is None:
            return
        height, width = frame_size_px(self.pipeline.transformer.config, self.pipeline.vae_scale_factor_spatial)
        check_enlarge_factor((frames, height, width * (num_people if self.preset.is_single_person else 1)), enlarge)

    def story(
        self,
        story: "str | Path | Story",
        folder: str | Path,
        faces: PersonInput | None = None,
        *,
        on_step: StepCallback | None = None,
        on_shot: "StoryCallback | None" = None,
        overwrite: bool = True,
    ) -> "StoryResult":
        """Render the shots of a story file and join them; finished shots in `folder` are kept.

        Args:
            story: A TOML or JSON file, or the result of `read_story`.
            folder: The folder of videos and pages.
            faces: The person, if it is not the one named in the story.
            on_step: Called after each step with the steps done and all steps of all shots.
            on_shot: Called before each shot with its number, the number of shots, and whether it is kept.
            overwrite: False refuses a folder with files of the same names and without a story record.

        Raises:
            ConfigError: The story is invalid (the message names the shot), or files would be replaced.
            LockedError: Another process renders a story in that folder.
        """
        from likeness.generation.stories.render import render_story

        return render_story(self, story, Path(folder), faces, on_step=on_step, on_shot=on_shot, overwrite=overwrite)

    def generate_many(
        self,
        requests: Sequence[GenerationRequest],
        settings: GenerationSettings | None = None,
        *,
        on_step: StepCallback | None = None,
        is_measured: bool = True,
        judge: Judge | None = None,
    ) -> list[Clip]:
        """Make several clips in one batch: faster for each, and the same videos up to rounding.

        Every request needs the same number of references. `is_measured=False` omits the similarity. A `judge` sees the
        predicted first frame of a single request and may end it with `Rejected`.
        """
        settings = settings or self.settings()
        self.check_frames(settings.frames)
        if is_measured:  # Checked before sampling.
            people = [person for request in requests for person in request.people]
            refuse_other_engines([face for person in people for face in person])
        styled = [replace(request, prompt=add_style(request.prompt, settings.style)) for request in requests]
        requests = [assign_regions(request, self.preset.is_single_person) for request in styled]

        def sample() -> np.ndarray:
            with use_shape_source(self.method, settings):
                return denoise(self.pipeline, self.method, requests, settings, on_step=on_step, judge=judge)

        if self.memory is None:
            videos = sample()
        else:
            videos = self.memory.run(sample, frames=settings.frames, batch=2 * len(requests))
        clips = []
        for request, frames in zip(requests, videos, strict=True):
            similarity, people = None, ()
            if is_measured:
                similarity, people = measure_clip(frames, request.people, person_boxes(request))
            clips.append(
                Clip(
                    frames=frames,
                    fps=self.preset.fps,
                    prompt=request.prompt,
                    settings=self._record(request, settings, frames),
                    similarity=similarity,
                    references=tuple(face for person in request.people for face in person),
                    people=people,
                )
            )
        return clips

    def _record(self, request: GenerationRequest, settings: GenerationSettings, frames: np.ndarray) -> dict[str, Any]:
        return {
            "seed": request.seed,
            **settings.model_dump(),
            "preset": self.preset.name,
            "method": type(self.method).__name__,
            "licence": self.preset.licence,
            "fps": self.preset.fps,
            "width": frames.shape[2],
            "height": frames.shape[1],
            "references": [describe_reference(face) for face in request.people[0]],
            **_describe_other_people(request),
            **({"character": request.character} if request.character else {}),
            **({"memory_plan": self.memory.prediction.plan.name} if self.memory else {}),
            "versions": describe_software(),
            "weights_sha256": self.weights,
        }


def _describe_other_people(request: GenerationRequest) -> dict[str, Any]:
    """The part of the record that describes further people."""
    if not request.is_multi_person:
        return {}
    regions = request.regions
    return {
        "other_references": [[describe_reference(face) for face in person] for person in request.people[1:]],
        "regions": None if regions is None else asdict(regions),
    }
