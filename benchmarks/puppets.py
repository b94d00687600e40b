"""Are puppets faces to networks trained on photographs, are they distinguishable, and are they quick to render?"""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from claims import Benchmark

from likeness.faces import default_engine
from likeness.media import resize
from likeness.puppets import sample_clip, sample_image, sample_person

ENLARGED_PX = 384


def found(seed: int) -> bool:
    """Whether dlib's HOG detector finds the face of a random 128 px render enlarged to 384 px."""
    picture = resize(sample_image(seed, size_px=128).frames[0], ENLARGED_PX, ENLARGED_PX)
    engine = default_engine()
    return any(detection.score >= engine.min_score for detection in engine.detect(picture))


def embeddings(seed: int, identity: int) -> np.ndarray:
    """Dlib's numbers of three pictures of one person, each with its own pose, light, setting and expression."""
    person, engine, rows = sample_person(seed + identity), default_engine(), []
    for take in range(3):
        clip = sample_image(seed + 1000 * identity + take, person=person, size_px=128)
        scale = ENLARGED_PX / 128
        rows.append(engine.embed(resize(clip.frames[0], ENLARGED_PX, ENLARGED_PX), clip.landmarks[0] * scale))
    return np.stack(rows)


def frames_per_second(seed: int, size_px: int, num_clips: int) -> float:
    """Frames drawn in a second by two processes."""
    seeds = range(seed, seed + num_clips)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_draw, [(seed - 1, size_px)] * 4))
        start = time.perf_counter()
        num_frames = sum(pool.map(_draw, [(seed, size_px) for seed in seeds]))
        return num_frames / (time.perf_counter() - start)


def _draw(task: tuple[int, int]) -> int:
    return len(sample_clip(task[0], size_px=task[1]).frames)


def area_under_curve(distances: np.ndarray, is_same: np.ndarray) -> float:
    """Chance that a pair of one identity is nearer than a pair of two."""
    order = np.argsort(np.argsort(-distances)) + 1
    num_same, num_other = is_same.sum(), (~is_same).sum()
    return float((order[is_same].sum() - num_same * (num_same + 1) / 2) / (num_same * num_other))


def main() -> None:
    benchmark = Benchmark("puppets", seed=31_000)
    arguments = benchmark.arguments()
    seed = arguments.seed
    num_renders, num_people, num_clips = (80, 20, 8) if arguments.quick else (400, 100, 40)

    rate = float(np.mean([found(seed + index) for index in range(num_renders)]))
    vectors = np.stack([embeddings(seed, identity) for identity in range(num_people)]).reshape(-1, 128)
    identities = np.repeat(np.arange(num_people), 3)
    first, second = np.triu_indices(len(vectors), 1)
    distances = np.linalg.norm(vectors[first] - vectors[second], axis=1)
    is_same = identities[first] == identities[second]

    benchmark.note("puppets.distance_same_mean", round(float(distances[is_same].mean()), 3))
    benchmark.note("puppets.distance_others_mean", round(float(distances[~is_same].mean()), 3))
    benchmark.claim("puppets.face_rate", rate, ">=", 0.95)
    benchmark.claim("puppets.identity_auc", area_under_curve(distances, is_same), ">=", 0.97)
    benchmark.claim("puppets.frames_per_s_64px", frames_per_second(seed, 64, num_clips), ">=", 100)
    benchmark.claim("puppets.frames_per_s_128px", frames_per_second(seed, 128, max(4, num_clips // 4)), ">=", 35)
    benchmark.finish()


if __name__ == "__main__":
    main()
