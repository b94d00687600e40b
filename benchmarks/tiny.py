"""Does the tiny backbone, from text alone, show faces that follow the prompt, and does its VAE keep the person?"""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from acting import generate, judge, true_clips
from claims import Benchmark
from diffusers import CogVideoXPipeline
from face_quality import compare, measure

from likeness.errors import FaceError
from likeness.evaluation.puppet_checks.actions import RULES
from likeness.evaluation.puppet_checks.color import name_clothing
from likeness.evaluation.puppet_checks.rank1 import identify
from likeness.faces import read_face
from likeness.generation.loading.presets import PRESETS
from likeness.generation.outputs.similarity import frame_embeddings
from likeness.media import contact_sheet, write_image
from likeness.puppets import PuppetClip, sample_clip, sample_image, sample_person
from likeness.training.base.pipelines import read_base
from likeness.weights import CHECKPOINTS

STOCK = """
import sys, torch
from diffusers import CogVideoXPipeline
pipe = CogVideoXPipeline.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True)
frames = pipe("a woman in a red sweater nods in a park", num_inference_steps=2, output_type="np").frames
assert frames.shape[-1] == 3
assert not any(name.split(".")[0] == "likeness" for name in sys.modules)
"""


def loads_in_stock_diffusers(folder: Path) -> bool:
    """Whether a process that never imports this package generates with the checkpoint."""
    done = subprocess.run([sys.executable, "-c", STOCK, str(folder)], capture_output=True, text=True, check=False)
    return done.returncode == 0


def flicker(frames: np.ndarray) -> float:
    """Mean second difference in time: what neither rests nor moves evenly."""
    values = frames.astype(np.float32)
    return float(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean())


PAGE = 24
"""Prompts and seeds on the page, without selection."""
QUALITY_FRAMES = (0, 4, 8, 12, 16)


def measure_faces(
    benchmark: Benchmark,
    pipe: CogVideoXPipeline,
    pool: ProcessPoolExecutor,
    videos: np.ndarray,
    truths: list[PuppetClip],
) -> None:
    """Face quality beside true clips through the VAE; the floor is other clips of the same people and prompts."""
    seed, moments = benchmark.arguments().seed, [m for m in QUALITY_FRAMES if m < videos.shape[1]]
    others = [
        sample_clip(seed + 700_000 + number, person=truth.person, action=truth.action)
        for number, truth in enumerate(truths)
    ]
    if videos.shape[1] == 1:
        seen, true, other = (
            videos[:, 0],
            *([reconstruct(pipe, clip.frames[:1])[0] for clip in clips] for clips in (truths, others)),
        )
    else:
        seen, true, other = (
            [clip[moment] for clip in clips for moment in moments]
            for clips in (
                videos,
                *([reconstruct(pipe, clip.frames) for clip in clips] for clips in (truths, others)),
            )
        )
    ours, theirs, floor = (measure(pool, list(frames)) for frames in (seen, true, other))
    quality, best = compare(ours, theirs), compare(floor, theirs)
    benchmark.note("tiny.quality.true_face_rate", best.face_rate)
    benchmark.note("tiny.quality.face_distance_floor", best.face_distance)
    benchmark.note("tiny.quality.face_rate", quality.face_rate)
    benchmark.note("tiny.quality.face_distance", quality.face_distance)
    benchmark.claim("tiny.face_rate_kept", quality.face_rate / best.face_rate, ">=", 0.97)
    benchmark.claim("tiny.detection_score_share", quality.score_share, ">=", 0.90)
    benchmark.claim("tiny.mirror_ratio", quality.mirror_ratio, "<=", 1.15)
    benchmark.claim("tiny.eye_agreement_share", quality.eye_agreement_share, ">=", 0.90)
    benchmark.claim("tiny.face_distance_over_floor", quality.face_distance / max(best.face_distance, 1e-9), "<=", 2.0)


def measure_images(benchmark: Benchmark, pipe: CogVideoXPipeline, pool: ProcessPoolExecutor) -> None:
    """The faces of single images: an estimate in a fiftieth of the time."""
    arguments = benchmark.arguments()
    truths = [sample_clip(arguments.seed + number, num_frames=1) for number in range(arguments.images)]
    prompts = [truth.caption for truth in truths]
    videos = generate(pipe, prompts, seed=arguments.seed, steps=arguments.steps, guidance=arguments.guidance,
                      batch=arguments.batch, num_frames=1)  # fmt: skip
    pictures = [video[0] for video in videos[:PAGE]]
    rows = [pictures[start : start + 8] for start in range(0, len(pictures), 8)]
    write_image(arguments.sheet, contact_sheet(rows, cell_px=128, gap_px=2))
    named = [name_clothing(video) == truth.clothing for video, truth in zip(videos, truths, strict=True)]
    benchmark.note("tiny.images.clothing_right", float(np.mean(named)))
    measure_faces(benchmark, pipe, pool, videos, truths)


def draw_page(benchmark: Benchmark, pipe: CogVideoXPipeline) -> None:
    """Prompts and seeds one after the other, five frames of each, nothing picked."""
    arguments = benchmark.arguments()
    prompts = [sample_clip(arguments.seed + 900_000 + number, num_frames=1).caption for number in range(PAGE)]
    videos = generate(
        pipe,
        prompts,
        seed=arguments.seed + 900_000,
        steps=arguments.steps,
        guidance=arguments.guidance,
        batch=arguments.batch,
    )
    rows = [[video[moment] for moment in QUALITY_FRAMES] for video in videos]
    write_image(arguments.page, contact_sheet(rows, prompts))


def measure_text(benchmark: Benchmark, pipe: CogVideoXPipeline, pool: ProcessPoolExecutor) -> None:
    arguments = benchmark.arguments()
    truths = true_clips(arguments.seed, arguments.clips)
    actions = [truth.action for truth in truths]
    videos = generate(
        pipe,
        [truth.caption for truth in truths],
        seed=arguments.seed,
        steps=arguments.steps,
        guidance=arguments.guidance,
        batch=arguments.batch,
    )
    rows = [[video[index] for index in (0, 4, 8, 12, 16)] for video in videos[:21]]
    write_image(arguments.sheet, contact_sheet(rows, [truth.caption for truth in truths[:21]]))
    judged = list(pool.map(judge, zip(videos, actions, strict=True)))
    is_right = np.array([seen for _, seen, _ in judged])
    for action in RULES:
        mine = np.array([name == action for name in actions])
        if mine.any():
            benchmark.note(f"tiny.action.{action}", float(is_right[mine].mean()))
    own = list(pool.map(judge, [(truth.frames, truth.action) for truth in truths]))
    benchmark.note("tiny.true_clips.face_rate", float(np.mean([rate for rate, _, _ in own])))
    benchmark.note("tiny.true_clips.action_right", float(np.mean([seen for _, seen, _ in own])))
    benchmark.note(
        "tiny.true_clips.clothing_right",
        float(np.mean([word == truth.clothing for (_, _, word), truth in zip(own, truths, strict=True)])),
    )
    ratio = np.mean([flicker(video) for video in videos]) / np.mean([flicker(truth.frames) for truth in truths])
    benchmark.note("tiny.flicker_over_true_clips", float(ratio))
    named = [word == truth.clothing for (_, _, word), truth in zip(judged, truths, strict=True)]
    benchmark.claim("tiny.face_rate", float(np.mean([rate for rate, _, _ in judged])), ">=", 0.80)
    benchmark.claim("tiny.action_right", float(is_right.mean()), ">=", 0.75)
    benchmark.claim("tiny.clothing_right", float(np.mean(named)), ">=", 0.75)
    measure_faces(benchmark, pipe, pool, videos, truths)


@torch.no_grad()
def reconstruct(pipe: CogVideoXPipeline, frames: np.ndarray) -> np.ndarray:
    """Through the VAE and back."""
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode()).sample
    return ((decoded[0].permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def reference_embedding(seed: int) -> np.ndarray:
    """Read the first picture of person `seed` in which exactly one face is found."""
    for take in range(20):
        picture = sample_image(seed + 1000 * take, person=sample_person(seed), size_px=256).frames[0]
        try:
            return read_face(picture).embedding
        except FaceError:
            continue
    raise AssertionError(f"person {seed} has no readable picture")


def measure_vae(benchmark: Benchmark, pipe: CogVideoXPipeline, pool: ProcessPoolExecutor) -> None:
    arguments = benchmark.arguments()
    seeds = [arguments.seed + 500_000 + number for number in range(arguments.people)]
    clips: list[PuppetClip] = [sample_clip(seed, person=sample_person(seed)) for seed in seeds]
    rebuilt = [reconstruct(pipe, clip.frames) for clip in clips]
    errors = [np.mean((a.frames.astype(np.float32) - b) ** 2) for a, b in zip(clips, rebuilt, strict=True)]
    gallery = np.stack(list(pool.map(reference_embedding, seeds)))
    results = []
    for videos in ([clip.frames for clip in clips], rebuilt):
        embeddings = list(pool.map(frame_embeddings, [video[::2] for video in videos]))
        persons = np.repeat(np.arange(len(seeds)), len(embeddings[0]))
        results.append(identify(np.concatenate(embeddings), persons, gallery))
    true, coded = results
    benchmark.note("tiny.vae.true_rank1", true.rank1_rate)
    benchmark.note("tiny.vae.true_found_rank1", true.found_rank1_rate)
    benchmark.note("tiny.vae.true_face_rate", true.face_rate)
    benchmark.note("tiny.vae.rank1", coded.rank1_rate)
    benchmark.note("tiny.vae.found_rank1", coded.found_rank1_rate)
    benchmark.note("tiny.vae.face_rate", coded.face_rate)
    benchmark.claim("tiny.vae.psnr_db", float(np.mean(10 * np.log10(255**2 / np.array(errors)))), ">=", 30)
    benchmark.claim("tiny.vae.rank1_kept", coded.rank1_rate / true.rank1_rate, ">=", 0.9)
    benchmark.claim("tiny.vae.face_rate_kept", coded.face_rate / true.face_rate, ">=", 0.9)


def main() -> None:
    preset = PRESETS["tiny"]
    benchmark = Benchmark("tiny", seed=300_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "tiny")
    benchmark.parser.add_argument("--clips", type=int, help="prompts; by default 100")
    benchmark.parser.add_argument("--people", type=int, help="people for the VAE; by default 40")
    benchmark.parser.add_argument("--steps", type=int, default=preset.steps)
    benchmark.parser.add_argument("--guidance", type=float, default=preset.guidance)
    benchmark.parser.add_argument("--batch", type=int, default=10)
    benchmark.parser.add_argument("--sheet", type=Path, default=Path("runs/benchmarks/tiny.png"))
    benchmark.parser.add_argument("--page", type=Path, default=Path("runs/benchmarks/tiny_page.png"))
    benchmark.parser.add_argument("--images", type=int, help="measure so many single images, and nothing else")
    arguments = benchmark.arguments()
    arguments.clips = arguments.clips or (14 if arguments.quick else 100)
    arguments.people = arguments.people or (10 if arguments.quick else 40)
    pipe = read_base(arguments.checkpoint)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        if arguments.images:
            measure_images(benchmark, pipe, pool)
            benchmark.finish()
            return
        measure_vae(benchmark, pipe, pool)
        measure_text(benchmark, pipe, pool)
    draw_page(benchmark, pipe)
    benchmark.claim("tiny.loads_in_stock_diffusers", float(loads_in_stock_diffusers(arguments.checkpoint)), ">=", 1)
    parts = [arguments.checkpoint / part for part in ("vae", "text_encoder", "transformer")]
    files = [path for part in parts for path in part.glob("*.safetensors")]
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    benchmark.claim("tiny.megabytes", size_mb, "<=", 30)
    benchmark.finish()


if __name__ == "__main__":
    main()
