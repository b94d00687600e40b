"""Figures of Magic Mirror (arXiv:2501.03931v1) that are not ablations of its parts, at tiny size, as pictures.

scales (Figure 9): t-SNE of the modulation's scales over layers and timesteps: video, text, face, and the video's with
    the offset of conditioned adaptive normalization (CAN).
norms (Figure 14): only the base's modulation layers are trained, on two sets that differ in light and motion; samples
    of both, from the same noise.
prompts (Figure 11): identity and faces found with short prompts and with prompts that describe the scene.

    python benchmarks/paper_figures.py scales --folder runs/figures
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Benchmark
from identity import Subject, article, draw_subject, make, write_prompt
from torch import Tensor, nn

from likeness import media
from likeness.generation import GenerationRequest, Likeness
from likeness.generation.outputs.similarity import frame_embeddings
from likeness.puppets import sample_clip, sample_person
from likeness.training.data.datasets import crops_to_references
from likeness.training.data.prompts import tokenize_prompt
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser

TIMESTEPS = torch.linspace(20, 980, 20).long()
SEEDS = (0, 1, 2)
STREAMS = ("video", "text", "face", "video with CAN")


def main() -> int:
    """Make one figure, claim what the paper says of it, and print the table."""
    benchmark = Benchmark("paper_figures", seed=400_000_000)
    benchmark.parser.add_argument("figure", choices=sorted(FIGURES))
    benchmark.parser.add_argument("--backbone", type=Path, default=Path("src/likeness/checkpoints/tiny"))
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/figures"), help="of the pictures")
    arguments = benchmark.arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    FIGURES[arguments.figure](benchmark, arguments)
    return benchmark.finish()


def draw_scales(benchmark: Benchmark, arguments: Any) -> None:
    """Figure 9. A point is one stream's scale before attention, at one timestep in one adapted layer."""
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    likeness = Likeness.load(backbone=arguments.backbone)
    scales = read_scales(likeness, draw_subject(arguments.seed))  # (streams, layers, timesteps, width)
    streams, layers, timesteps, width = scales.shape
    points = scales.reshape(-1, width).numpy()
    labels = np.repeat(np.arange(streams), layers * timesteps)
    # The face's own distribution: how far it lies from the two streams that the base has.
    chosen = labels <= STREAMS.index("face")
    benchmark.claim("scales.silhouette_of_face", silhouette_score(points[chosen], labels[chosen] == 2), ">=", 0)
    within = scales.var(dim=2).mean()
    benchmark.claim("scales.variance_by_timestep", float(within / scales.flatten(1, 2).var(dim=1).mean()), "<=", 0.5)
    moved = (scales[3] - scales[0]).norm(dim=-1) / scales[0].norm(dim=-1)
    benchmark.note("scales.relative_offset_of_can", float(moved.mean()))
    flat = TSNE(n_components=2, perplexity=20, random_state=0, init="pca").fit_transform(points)
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for number, name in enumerate(STREAMS):
        axes[0].scatter(*flat[labels == number].T, s=10, label=name)
    axes[0].legend()
    axes[0].set_title("by stream")
    layer = np.tile(np.repeat(np.arange(layers), timesteps), streams)
    axes[1].scatter(*flat.T, s=10, c=layer, cmap="viridis")
    axes[1].set_title("by layer, dark is the first")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.savefig(arguments.folder / "scales.png", dpi=90)
    plt.close(figure)


@torch.no_grad()
def read_scales(likeness: Likeness, subject: Subject) -> Tensor:
    """Scales of every stream in every adapted layer and timestep: (streams, layers, timesteps, width)."""
    pipe, method = likeness.pipeline, likeness.method
    blocks = [block for block in pipe.transformer.transformer_blocks if block.layer is not None]
    length = pipe.transformer.config.max_text_seq_length
    prompt = tokenize_prompt(pipe.tokenizer, method, write_prompt(subject.group, 0), length)
    count = len(TIMESTEPS)
    size = pipe.transformer.config.sample_height
    inputs = DenoiserInputs(
        token_ids=prompt.ids[1].expand(count, -1),
        class_mask=prompt.masks[1].expand(count, -1),
        pixels=crops_to_references(torch.from_numpy(subject.face.crop)[None]).expand(count, -1, -1, -1, -1),
        extra_conditioning=torch.from_numpy(subject.face.embedding)[None, None].expand(count, -1, -1),
        active=torch.ones(count, dtype=torch.bool),
        noisy=torch.randn(count, 1, 16, size, size, generator=torch.Generator().manual_seed(0)),
        timesteps=TIMESTEPS,
    )
    outputs: dict[tuple[int, str], Tensor] = {}

    def keep(number: int, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[number, name] = output if isinstance(output, Tensor) else output[0]

        return hook

    hooks = []
    for number, block in enumerate(blocks):
        hooks.append(block.base.norm1.linear.register_forward_hook(keep(number, "base")))
        hooks.append(block.layer.face_norm.register_forward_hook(keep(number, "face")))
        hooks.append(block.layer.conditioned_norm.register_forward_hook(keep(number, "added")))
    MethodDenoiser(pipe, method)(inputs)
    for hook in hooks:
        hook.remove()
    streams: list[list[Tensor]] = [[] for _ in STREAMS]
    for number in range(len(blocks)):
        _, video, _, _, text, _ = outputs[number, "base"].chunk(6, dim=1)
        face = outputs[number, "face"].chunk(3, dim=1)[1]
        added = outputs[number, "added"].chunk(6, dim=1)[1]
        for stream, value in zip(streams, (video, text, face, video + added), strict=True):
            stream.append(value.float())
    return torch.stack([torch.stack(stream) for stream in streams])


def draw_norms(benchmark: Benchmark, arguments: Any) -> None:
    """Figure 14. Two sets: bright stills, and dark clips with motion."""
    steps, clips = (30, 8) if arguments.quick else (300, 48)
    rows, figures = [], {}
    for name in ("bright stills", "dark clips"):
        found = []
        for seed in SEEDS[:1] if arguments.quick else SEEDS:
            pipe = Likeness.load(backbone=arguments.backbone).pipeline
            frames, prompts = draw_set(name, clips, arguments.seed + 1000 * seed)
            before = samples(pipe, arguments.seed)
            train_norms(pipe, frames, prompts, steps=steps, seed=seed)
            after = samples(pipe, arguments.seed)
            found.append([statistics(frames), statistics(before), statistics(after)])
            if seed == SEEDS[0]:
                rows += [list(before[0][::4]), list(after[0][::4])]
        truth, base, trained = np.array(found).mean(axis=0)
        figures[name] = trained
        for number, what in enumerate(("brightness", "motion")):
            key = f"norms.{name.replace(' ', '_')}.{what}"
            benchmark.note(key, f"set {truth[number]:.3f}, before {base[number]:.3f}, after {trained[number]:.3f}")
    bright, dark = figures["bright stills"], figures["dark clips"]
    benchmark.claim("norms.brightness_ratio", bright[0] / dark[0], ">=", 1.2)
    benchmark.claim("norms.motion_ratio", dark[1] / max(bright[1], 1e-9), ">=", 1.2)
    media.write_image(arguments.folder / "norms.png", media.contact_sheet(rows, cell_px=96, gap_px=2))


def draw_set(name: str, count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Clips (clips, frames, height, width, 3) uint8 of one of the two sets, and their prompts."""
    drawn = [sample_clip(seed + n, person=sample_person(seed + n), num_frames=17, size_px=64) for n in range(count)]
    frames = np.stack([clip.frames for clip in drawn]).astype(np.float32)
    is_still = name == "bright stills"
    frames = np.repeat(frames[:, :1], frames.shape[1], axis=1) * 0.6 + 102 if is_still else frames * 0.45
    return frames.round().astype(np.uint8), [clip.prompt.replace(" img", "") for clip in drawn]


def train_norms(pipe: Any, frames: np.ndarray, prompts: list[str], *, steps: int, seed: int) -> None:
    """Train phi_vid and phi_txt, the linear layers of the blocks' norms, and nothing else."""
    transformer = pipe.transformer
    transformer.requires_grad_(False)
    trained = []
    for block in transformer.transformer_blocks:
        base = getattr(block, "base", block)
        for linear in (base.norm1.linear, base.norm2.linear):
            trained += list(linear.requires_grad_(True).parameters())
    with torch.no_grad():
        pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
        modes = [pipe.vae.encode(clip[None]).latent_dist.mode() for clip in pixels]
        latents = torch.cat(modes).transpose(1, 2) * pipe.vae.config.scaling_factor
        text, _ = pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=transformer.config.max_text_seq_length
        )
    alphas = pipe.scheduler.alphas_cumprod.float()
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    torch.manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(latents), (8,))
        timesteps = torch.randint(1000, (8,))
        noisy, target = diffusion.noisy_and_velocity(latents[rows], torch.randn_like(latents[rows]), alphas[timesteps])
        loss = (diffusion.predict_velocity(transformer, noisy, text[rows], timesteps) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def samples(pipe: Any, seed: int) -> np.ndarray:
    """Four clips from the same noise: (clips, frames, height, width, 3) uint8."""
    prompts = [f"a {who} smiles at the camera in a park" for who in ("woman", "man", "girl", "boy")]
    clips = diffusion.sample_clips(
        pipe,
        prompt=prompts,
        num_frames=17,
        seed=seed % 1000,
        guidance=2.0,
        max_sequence_length=pipe.transformer.config.max_text_seq_length,
    )
    return np.stack(clips)


def statistics(frames: np.ndarray) -> tuple[float, float]:
    """Mean brightness, and mean absolute change from frame to frame as a share of it."""
    values = frames.astype(np.float32) / 255
    return float(values.mean()), float(np.abs(np.diff(values, axis=1)).mean() / values.mean())


def compare_prompts(benchmark: Benchmark, arguments: Any) -> None:
    """Figure 11, for text to video: a prompt of the class word alone, and one that describes clothes and scene."""
    subjects = [draw_subject(arguments.seed + n) for n in range(2 if arguments.quick else 12)]
    likeness = Likeness.load(backbone=arguments.backbone)
    rows = []
    for name in ("short", "long"):
        found, similarity = [], []
        for seed in SEEDS[:1] if arguments.quick else SEEDS:
            requests = [
                GenerationRequest(prompt=prompt_of(subject, name, row), people=((subject.face,),), seed=seed)
                for row, subject in enumerate(subjects)
            ]
            videos = make(likeness, requests, 6)
            if seed == SEEDS[0]:
                rows += [
                    [subject.picture, *video[::4]] for subject, video in zip(subjects[:3], videos[:3], strict=True)
                ]
            distances = [distance_to(video, subject) for video, subject in zip(videos, subjects, strict=True)]
            found.append(np.mean([np.isfinite(each).mean() for each in distances]))
            similarity.append(np.nanmean(np.concatenate(distances)))
        benchmark.note(f"prompts.{name}.face_rate", f"{np.mean(found):.3f} +- {np.std(found):.3f}")
        benchmark.note(f"prompts.{name}.distance", f"{np.mean(similarity):.3f} +- {np.std(similarity):.3f}")
    media.write_image(arguments.folder / "prompts.png", media.contact_sheet(rows, cell_px=96, gap_px=2))


def prompt_of(subject: Subject, length: str, row: int) -> str:
    if length == "long":
        return write_prompt(subject.group, row)
    return f"{article(subject.group)} {subject.group} img"


def distance_to(frames: np.ndarray, subject: Subject) -> np.ndarray:
    """Distance of each frame's face to the reference, NaN without a face: (frames,)."""
    return np.linalg.norm(frame_embeddings(frames) - subject.face.embedding, axis=1)


FIGURES = {"norms": draw_norms, "prompts": compare_prompts, "scales": draw_scales}


if __name__ == "__main__":
    sys.exit(main())
