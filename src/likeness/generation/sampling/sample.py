"""Run the stock denoising loop with an identity active.

The loop is the pipeline's own. A `Judge` sees the predicted first frame after some of the steps and may end the
loop: that costs one decoded frame and saves the remaining steps and the decoding of the video.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from diffusers.schedulers.scheduling_dpm_cogvideox import CogVideoXDPMScheduler
from torch import Tensor

from likeness.backbones.transformer_config import frame_size_px
from likeness.errors import ConfigError, SamplingError
from likeness.generation.inputs.request import GenerationRequest
from likeness.generation.inputs.settings import GenerationSettings
from likeness.methods.method import Method

StepCallback = Callable[[int, int], None]
"""Called after each denoising step with the number of steps done and the number of all steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Judges a clip by its predicted first frame during sampling."""

    step: int
    """Number of steps before the judgment."""
    keeps: Callable[[np.ndarray], bool]
    """Takes the predicted first frame, (height, width, 3) uint8; False ends the loop."""


class Rejected(Exception):  # noqa: N818 - a verdict, not an error
    """A judge ended the loop."""


def denoise(
    pipeline: Any,
    method: Method,
    requests: Sequence[GenerationRequest],
    settings: GenerationSettings,
    *,
    on_step: StepCallback | None = None,
    judge: Judge | None = None,
) -> np.ndarray:
    """Generate the frames of every request.

    Shapes:
        returns: (batch, frames, height, width, 3) uint8

    Raises:
        ConfigError: The pipeline's scheduler does not end in so many steps.
        SamplingError: Latents or pixels are not finite.
        Rejected: The judge ended the loop. Only single requests are judged.
    """
    assert judge is None or len(requests) == 1
    check_steps(pipeline.scheduler, settings.steps)
    # Noise is drawn on the CPU, so that a seed gives the same noise on every device.
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
    identity = _encode_identities(method, requests)
    controls = {**settings.identity_controls(), "regions": requests[0].regions}
    try:
        with (
            torch.no_grad(),
            method.identity(identity, **controls),
            _expose_noise_prediction(pipeline, judge),
        ):
            prompts = [request.prompt for request in requests]
            embeddings = method.prompt(prompts, negative_prompt=settings.negative_prompt)
            videos = pipeline(
                **embeddings,
                **method.pipeline_arguments(identity),
                **frame_size_arguments(pipeline, requests),
                num_frames=settings.frames,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                generator=generators,
                callback_on_step_end=_step_end_callback(settings, on_step, judge),
                callback_on_step_end_tensor_inputs=["latents"] if judge is None else ["latents", "noise_pred"],
                output_type="np",
            ).frames
    except (Rejected, SamplingError):
        # The pipeline's own cleanup at its normal end.
        pipeline._current_timestep = None
        pipeline.maybe_free_model_hooks()
        raise
    return to_bytes(np.asarray(videos))


def _step_end_callback(
    settings: GenerationSettings, on_step: StepCallback | None, judge: Judge | None
) -> Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]:
    """The pipeline's `callback_on_step_end`: check the latents, report the step, ask the judge."""
    previous_latents: Tensor | None = None

    def on_step_end(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        nonlocal previous_latents
        refuse_not_finite(tensors["latents"], f"step {step + 1} of {settings.steps}")
        if on_step is not None:
            on_step(step + 1, settings.steps)
        if judge is not None and step + 1 == judge.step:
            assert previous_latents is not None
            frame = predict_first_frame(
                pipeline, previous_latents, tensors.pop("noise_pred"), timestep, settings.frames
            )
            if not judge.keeps(frame):
                raise Rejected
        previous_latents = tensors["latents"]
        return tensors

    return on_step_end


def refuse_not_finite(latents: Tensor, when: str) -> None:
    """Stop at latents with infinities or NaN, which spread to every later step and to the video.

    Raises:
        SamplingError: Some latents are not finite.
    """
    if not torch.isfinite(latents).all():
        raise SamplingError(_not_finite_message(when))


def _not_finite_message(when: str) -> str:
    return (
        f"The model gave numbers that are not finite in {when}, so there is no video. Weights may be damaged "
        "(`likeness models check` checks those that are here), or numbers too large for their dtype: try a smaller "
        "`identity_scale` or `guidance`."
    )


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuse numbers of steps with which CogVideoX's schedulers do not end at zero noise.

    The DPM solver takes 1000 // steps as the length of every step. If the true length is rounded up, the last step
    ends at timestep 0 instead of zero noise, and its second-order correction, which assumes steps of equal length in
    log-SNR, is several times the step itself: faces are distorted. If 1000 / steps is rounded down, both schedulers
    can list one timestep too many, -1, which is pure noise.

    Raises:
        ConfigError: `steps` is such a number.
    """
    if not isinstance(scheduler, CogVideoXDPMScheduler | CogVideoXDDIMScheduler):
        return
    probe: Any = type(scheduler).from_config(scheduler.config)
    if _ends_at_zero_noise(probe, steps):
        return
    below = next((n for n in range(steps, 0, -1) if _ends_at_zero_noise(probe, n)), None)
    above = next((n for n in range(steps, probe.config.num_train_timesteps) if _ends_at_zero_noise(probe, n)), None)
    nearest = " or ".join(str(n) for n in (below, above) if n is not None)
    raise ConfigError(
        f"`steps` is {steps}, in which the backbone's scheduler does not come to an end without noise. Take {nearest}."
    )


def _ends_at_zero_noise(scheduler: Any, steps: int) -> bool:
    scheduler.set_timesteps(steps)
    last = int(scheduler.timesteps[-1])
    if last < 0 or len(scheduler.timesteps) != steps:
        return False
    return isinstance(scheduler, CogVideoXDDIMScheduler) or last < scheduler.config.num_train_timesteps // steps


def _encode_identities(method: Method, requests: Sequence[GenerationRequest]) -> Any:
    people = [
        method.encode_people(request.people) if request.is_multi_person else method.encode(request.people[0])
        for request in requests
    ]
    return type(people[0]).stack(people)


def frame_size_arguments(pipeline: Any, requests: Sequence[GenerationRequest]) -> dict[str, int]:
    """Height and width of the pipeline call."""
    first = requests[0]
    if any((len(request.people), request.regions) != (len(first.people), first.regions) for request in requests):
        raise ConfigError(
            "Clips of one batch show the same number of people in the same regions. Make them one by one."
        )
    height, width = frame_size_px(pipeline.transformer.config, pipeline.vae_scale_factor_spatial)
    if first.regions is not None and first.regions.own_positions:
        width *= len(first.people)
    return {"height": height, "width": width}


def to_bytes(pictures: np.ndarray) -> np.ndarray:
    """Convert pixels in [0, 1] to uint8.

    Raises:
        SamplingError: Some are not finite.
    """
    if not np.isfinite(pictures).all():
        raise SamplingError(_not_finite_message("decoding"))
    return (pictures * 255).round().astype(np.uint8)


@torch.no_grad()
def predict_first_frame(
    pipeline: Any, latents: Tensor, prediction: Tensor, timestep: Tensor, num_frames: int
) -> np.ndarray:
    """Decode the first frame of the predicted clean video at this step.

    Shapes:
        latents: (1, frames, channels, height, width), before the step
        prediction: same shape, the model's output with guidance
        returns: (height, width, 3) uint8
    """
    scheduler = pipeline.scheduler
    alpha_cumprod = scheduler.alphas_cumprod.to(prediction.device, prediction.dtype)[timestep]
    signal, noise = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
    prediction_type = scheduler.config.prediction_type
    if prediction_type == "v_prediction":
        clean = signal * latents - noise * prediction
    elif prediction_type == "epsilon":
        clean = (latents - noise * prediction) / signal
    else:
        raise ConfigError(
            f"The scheduler predicts `{prediction_type}`; candidates are judged early for v_prediction and epsilon. "
            "Use another scheduler, or `best_of=1`."
        )
    # CogVideoX 1.5 pads before the first frame.
    first = latents.shape[1] - ((num_frames - 1) // pipeline.vae_scale_factor_temporal + 1)
    video = pipeline.decode_latents(clean[:, first : first + 1].to(latents.dtype))
    return to_bytes(pipeline.video_processor.postprocess_video(video=video, output_type="np")[0, 0])


@contextmanager
def _expose_noise_prediction(pipeline: Any, judge: Judge | None) -> Iterator[None]:
    """Add `noise_pred` to the tensors that the pipeline passes to its callback."""
    if judge is None:
        yield
        return
    tensor_inputs = pipeline._callback_tensor_inputs
    pipeline._callback_tensor_inputs = [*tensor_inputs, "noise_pred"]
    try:
        yield
    finally:
        del pipeline._callback_tensor_inputs  # The class attribute applies again.
