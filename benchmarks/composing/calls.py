"""Arguments of one pipeline call, and caches that skip steps."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline
from torch import Tensor, nn

from composing.features import cache_configs, skipping_options
from composing.subject import NUM_STEPS, Subject


def skipping(subject: Subject, name: str) -> tuple[float, float]:
    """Return the distance of a skipping cache from the plain run (RMS), and its share of the plain run's work."""
    videos, rows = [], []
    for caches in (True, False):
        pipe = subject.pipe()
        method = subject.method(pipe).attach(pipe)
        if caches:
            pipe.transformer.enable_cache(cache_configs(pipe, subject)[name])
        counted = rows_attended(pipe)
        videos.append(subject.sample(pipe, method, **skipping_options(subject)))
        rows.append(sum(counted))
    return _apart(*videos), rows[0] / rows[1]


def identity_effect(subject: Subject) -> float:
    """Return how far the identity takes the stock pipeline's video, both without a cache."""
    pipe, options = subject.pipe(), skipping_options(subject)
    method = subject.method(pipe).attach(pipe)
    return _apart(subject.sample(pipe, method, **options), subject.sample(subject.pipe(), **options))


def skipping_stock(subject: Subject, name: str) -> float:
    """Return how far the same cache takes the stock pipeline from its own plain run."""
    cached, plain = subject.pipe(), subject.pipe()
    cached.transformer.enable_cache(cache_configs(cached, subject)[name])
    options = skipping_options(subject)
    return _apart(subject.sample(cached, **options), subject.sample(plain, **options))


def rows_attended(pipe: CogVideoXPipeline) -> list[int]:
    """Tokens that any adapted block projects to queries, filled as the pipeline runs."""
    rows: list[int] = []
    for block in pipe.transformer.transformer_blocks:
        block.base.attn1.to_q.register_forward_hook(
            lambda _module, _args, output: rows.append(output.numel() // output.shape[-1])
        )
    return rows


def _apart(video: Tensor, plain: Tensor) -> float:
    return ((video - plain).norm() / plain.norm()).item()


def detached(subject: Subject, name: str) -> float:
    """Return the difference between a pipeline that wore the adapter and a stock one, both with a cache that skips."""
    videos = []
    for wears in (False, True):
        pipe = subject.pipe()
        if wears:
            method = subject.method(pipe).attach(pipe)
            subject.sample(pipe, method)
            method.detach()
        pipe.transformer.enable_cache(cache_configs(pipe, subject)[name])
        videos.append(subject.sample(pipe, **skipping_options(subject)))
    return (videos[0] - videos[1]).abs().max().item()


def other_scheduler(subject: Subject, kind: type) -> float:
    """Return the difference between the pipeline and a denoising loop written out, with this scheduler."""
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    start: list[Tensor] = []

    def keep(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors

    def first(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        start.append(kwargs["hidden_states"])
        rope.append(kwargs["image_rotary_emb"])

    rope: list[Any] = []
    hook = pipe.transformer.register_forward_pre_hook(first, with_kwargs=True, prepend=True)
    video = subject.sample(pipe, method, callback_on_step_end=keep)
    hook.remove()
    with method.identity(subject.identity(method)), torch.no_grad():
        embeddings = method.prompt(subject.prompt)
        text = torch.cat([embeddings["negative_prompt_embeds"], embeddings["prompt_embeds"]])
        latents, old = start[0][:1], None
        generator = torch.Generator().manual_seed(subject.seed)
        torch.randn(latents.shape, generator=generator)  # the pipeline's own first draw
        pipe.scheduler.set_timesteps(NUM_STEPS)
        times = pipe.scheduler.timesteps
        for number, time in enumerate(times):
            both = torch.cat([latents] * 2)
            velocity = pipe.transformer(both, text, time.expand(2), image_rotary_emb=rope[0]).sample
            stock, adapted = velocity.float().chunk(2)
            velocity = stock + subject.options.get("guidance_scale", 6) * (adapted - stock)
            options = {"generator": generator, "return_dict": False}
            if kind is CogVideoXDPMScheduler:
                before = times[number - 1] if number else None
                latents, old = pipe.scheduler.step(velocity, old, time, before, latents, **options)
            else:
                latents = pipe.scheduler.step(velocity, time, latents, **options)[0]
    return (video - latents).abs().max().item()


def own_embeddings(subject: Subject) -> float:
    """Return the difference when the caller encodes and fuses the prompt, and another negative prompt, themselves."""
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    person = subject.identity(method)
    length = pipe.transformer.config.max_text_seq_length
    with torch.no_grad():
        tokens = method.tokenize(
            [subject.prompt],
            pipe.tokenizer,
            num_references=person.id_tokens.shape[1] // method.tokens_per_reference,
            max_length=length,
        )
        fused = method.fuse(pipe.text_encoder(tokens.ids)[0], tokens.mask, person)
        negative = pipe.encode_prompt("a man", None, False, max_sequence_length=length)[0]
    own = {"prompt_embeds": fused, "negative_prompt_embeds": negative}
    options = {"num_inference_steps": NUM_STEPS, "output_type": "latent", **subject.options}
    videos = []
    with method.identity(person):
        for embeddings in (own, method.prompt(subject.prompt, negative_prompt="a man")):
            generator = torch.Generator().manual_seed(subject.seed)
            embeddings = {"max_sequence_length": length, **embeddings}
            videos.append(pipe(**options, **embeddings, generator=generator).frames)
    return (videos[0] - videos[1]).abs().max().item()


def several_videos(subject: Subject) -> float:
    """Return the difference between two videos of one prompt made in one call and made alone."""
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    options = {"num_inference_steps": NUM_STEPS, "output_type": "latent", **subject.options}
    videos = []
    with method.identity(subject.identity(method)):
        for seeds in ([1, 2], [1], [2]):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            embeddings = method.prompt([subject.prompt] * len(seeds))
            videos.append(pipe(**options, **embeddings, generator=generators).frames)
    return (videos[0] - torch.cat(videos[1:])).abs().max().item()


def callback(subject: Subject) -> float:
    """Return the difference when a callback reads the latents, hands them back and counts steps."""
    steps: list[int] = []

    def count(_pipe: Any, step: int, _time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(step)
        return {"latents": tensors["latents"].clone()}

    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    difference = subject.sample(pipe, method, callback_on_step_end=count) - subject.sample(pipe, method)
    return difference.abs().max().item() if steps == list(range(NUM_STEPS)) else float("nan")


def checkpointing(subject: Subject) -> float:
    """Return the largest difference that gradient checkpointing makes to any gradient of the adapter."""
    found = []
    for is_on in (False, True):
        pipe = subject.pipe()
        method = subject.method(pipe).attach(pipe)
        if is_on:
            pipe.transformer.enable_gradient_checkpointing()
        parameters = method.trainable_parameters()
        config = pipe.transformer.config
        generator = torch.Generator().manual_seed(subject.seed)
        side, width = method.config.image_size_px, method.config.embedding_width
        person = method.encode_tensors(
            torch.rand(1, 1, 3, side, side, generator=generator),
            torch.randn(1, 1, width, generator=generator),
        )
        video = torch.randn(1, 1, config.in_channels, 4, 4, generator=generator)
        text = torch.randn(1, config.max_text_seq_length, config.text_embed_dim, generator=generator)
        rope = pipe._prepare_rotary_positional_embeddings(32, 32, 1, torch.device("cpu"))
        with method.conditioned(person):
            pipe.transformer(video, text, torch.tensor([500]), image_rotary_emb=rope).sample.square().mean().backward()
        found.append([x.grad for x in parameters if x.grad is not None])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


CALLS: dict[str, Callable[[Subject], float]] = {
    "ddim_scheduler": lambda subject: other_scheduler(subject, CogVideoXDDIMScheduler),
    "dpm_scheduler": lambda subject: other_scheduler(subject, CogVideoXDPMScheduler),
    "callback_on_step_end": callback,
    "several_videos": several_videos,
    "own_embeddings_and_negative_prompt": own_embeddings,
    "gradient_checkpointing": checkpointing,
}
