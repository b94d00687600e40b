"""How many faces `read_face` and `find_faces` find in spoiled photographs, and how many boxes are none.

Photographs come from `LIKENESS_REAL` (default `../shared/real`), backgrounds from scikit-image. `--seed` changes how
blocks are shuffled.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from claims import Benchmark
from PIL import Image

from likeness.errors import FaceError
from likeness.faces import DlibEngine, find_faces, read_face
from likeness.faces.engines.rotated_copies import rotate
from likeness.faces.geometry.align import apply_affine
from likeness.media import read_image, resize
from likeness.records import Detection

BACKGROUNDS = ("coffee", "chelsea", "rocket", "brick", "text", "coins", "gravel", "grass", "clock", "page", "moon",
               "horse", "cell", "retina", "hubble_deep_field", "logo")  # fmt: skip
ANGLES_DEG = (15, 30, 45, 60, 75, 90, 180)
NUM_BLOCKS = 5
MAX_PX = 1024

Case = tuple[str, np.ndarray, np.ndarray | None, float]
"""Set, picture, center of the face or None, and the distance of its eyes in pixels."""


def photographs() -> list[np.ndarray]:
    folder = Path(os.environ.get("LIKENESS_REAL") or Path(__file__).parents[1] / ".." / "shared" / "real")
    return [skimage.data.astronaut(), *(read_image(path) for path in sorted(folder.glob("faces/*/*.png")))]


def spoil(photograph: np.ndarray, face: Detection) -> Iterator[Case]:
    """The photograph turned, masked, blurred, compressed and at half size."""
    center, eyes = face.landmarks.mean(axis=0), _eye_distance(face.landmarks)
    yield "plain", photograph, center, eyes
    for angle_deg in ANGLES_DEG:
        for sign in (1, -1) if angle_deg < 180 else (1,):
            copy, matrix = rotate(photograph, sign * angle_deg)
            yield f"turned {angle_deg}", copy, apply_affine(cv2.invertAffineTransform(matrix), center[None])[0], eyes
    yield "mask", mask(photograph, face.landmarks), center, eyes
    yield "blurred", cv2.GaussianBlur(photograph, (0, 0), eyes / 20), center, eyes
    encoded = io.BytesIO()
    Image.fromarray(photograph).save(encoded, "JPEG", quality=30)
    yield "JPEG 30", np.asarray(Image.open(encoded)), center, eyes
    height, width = (side // 2 for side in photograph.shape[:2])
    yield "half size", resize(photograph, width, height), center / 2, eyes / 2


def mask(photograph: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Paint a surgical mask from the base of the nose to the chin."""
    left, right, nose = landmarks[:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    eyes, down = np.linalg.norm(right - left), nose - (left + right) / 2
    x, y = nose + down / np.linalg.norm(down) * eyes * 0.45
    angle_deg = float(np.rad2deg(np.arctan2(*(right - left)[::-1])))
    axes = (int(eyes * 0.85), int(eyes * 0.7))
    return cv2.ellipse(photograph.copy(), (int(x), int(y)), axes, angle_deg, 0, 360, (180, 210, 230), -1)


def backgrounds(known: list[tuple[np.ndarray, Detection]], seed: int) -> Iterator[Case]:
    """Pictures without a face: of things, with the face painted over, and photographs in shuffled blocks."""
    for name in BACKGROUNDS:
        picture = np.asarray(getattr(skimage.data, name)())
        picture = picture if picture.dtype == np.uint8 else (picture > 0).astype(np.uint8) * 255
        picture = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture[..., :3]
        scale = min(1.0, MAX_PX / max(picture.shape[:2]))
        picture = resize(picture, round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        for view in (picture, np.ascontiguousarray(picture[:, ::-1]), rotate(picture, 45)[0]):
            yield "background", view, None, 0.0
    random = np.random.default_rng(seed)
    for photograph, face in known:
        left, top, right, bottom = face.box
        side = right - left
        corners = (int(left - side / 4), int(top - 0.6 * side)), (int(right + side / 4), int(bottom + 0.4 * side))
        yield "painted over", cv2.rectangle(photograph.copy(), *corners, (200, 160, 140), -1), None, 0.0
        yield "shuffled blocks", shuffle(photograph, random), None, 0.0


def shuffle(photograph: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = (side // NUM_BLOCKS for side in photograph.shape[:2])
    cells = photograph[: height * NUM_BLOCKS, : width * NUM_BLOCKS].reshape(NUM_BLOCKS, height, NUM_BLOCKS, width, 3)
    cells = cells.swapaxes(1, 2).reshape(-1, height, width, 3)[random.permutation(NUM_BLOCKS**2)]
    cells = cells.reshape(NUM_BLOCKS, NUM_BLOCKS, height, width, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(height * NUM_BLOCKS, width * NUM_BLOCKS, 3))


def is_there(landmarks: np.ndarray, center: np.ndarray | None, eyes: float) -> bool:
    near = center is not None and np.linalg.norm(landmarks.mean(axis=0) - center) < 0.6 * eyes
    return bool(near and 0.5 < _eye_distance(landmarks) / eyes < 2)


def _eye_distance(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[2:4].mean(axis=0) - landmarks[:2].mean(axis=0)))


def read_one(picture: np.ndarray) -> list[np.ndarray]:
    try:
        return [read_face(picture).landmarks]
    except FaceError:
        return []


def count(cases: list[Case]) -> dict[str, np.ndarray]:
    """For each set: pictures, faces found by `find_faces` and `read_face`, and their false boxes."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(5, int))
    for name, picture, center, eyes in cases:
        found = [[face.landmarks for face in find_faces(picture)], read_one(picture)]
        hits = [any(is_there(one, center, eyes) for one in each) for each in found]
        false = [sum(not is_there(one, center, eyes) for one in each) for each in found]
        counts[name] += [1, *hits, *false]
    return counts


def main() -> None:
    benchmark = Benchmark("faces", seed=1)
    arguments = benchmark.arguments()
    engine = DlibEngine()
    known = []
    for photograph in photographs()[:: 8 if arguments.quick else 1]:
        faces = engine.detect(photograph)
        known.append((photograph, max(faces, key=lambda each: each.score * (each.box[2] - each.box[0]))))
    cases = [case for pair in known for case in spoil(*pair)] + list(backgrounds(known, arguments.seed))
    counts = count(cases)
    print(f"{'set':16} pictures  find_faces read_face  false: find_faces read_face")
    for name, (total, *row) in counts.items():
        print(f"{name:16} {total:8} {row[0]:11} {row[1]:9} {row[2]:18} {row[3]:9}", flush=True)
    turned = np.sum([row for name, row in counts.items() if name.startswith("turned")], axis=0)
    benchmark.note("faces.masked", float(counts["mask"][2] / counts["mask"][0]))
    benchmark.claim("faces.turned", float(turned[2] / turned[0]), ">=", 0.95)
    benchmark.claim("faces.plain", float(counts["plain"][2] / counts["plain"][0]), ">=", 0.95)
    benchmark.claim("faces.false_boxes", float(sum(row[3:].sum() for row in counts.values())), "<=", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
