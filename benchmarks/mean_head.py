"""Depth errors of the posed mean head (`--shape mean_head`) against heads that were published with FantasyID.

`ASSETS` is the folder `assets` of the published repository (Fantasy-AMAP/fantasy-id), or a copy: `transform.pkl` and,
for each sample, a photograph NAME.jpg beside DECA's vertices NAME.ply. Errors are RMS differences of z at the vertices
that the released weights read. "Held out" uses the mean of the pitches that fit the other samples best; the neutral
head is the same one without rotation.

    python benchmarks/mean_head.py ASSETS --json mean_head.json
"""

import sys
from pathlib import Path

import numpy as np
from claims import Benchmark
from numpy.typing import NDArray

from likeness.faces import read_face
from likeness.identity.face_shape.flame import read_points
from likeness.identity.face_shape.mean_head import CENTER_M, JOINT_M, PITCH_DEG, MeanHeadShape
from likeness.identity.mesh.published_mesh import MESH_FILE, read_mesh, read_template
from likeness.media import read_image
from likeness.records import Face

PITCHES_DEG = np.arange(-60.0, 31.0, 0.5)


def depth_error_m(vertices: NDArray[np.floating], truth: NDArray[np.floating], used: NDArray[np.int64]) -> float:
    """RMS difference of z over the vertices `used`, in meters."""
    return float(np.sqrt(((vertices[used, 2] - truth[used, 2]) ** 2).mean()))


def best_pitch_deg(
    face: Face, truth: NDArray[np.floating], template: NDArray[np.floating], used: NDArray[np.int64]
) -> float:
    errors = [depth_error_m(MeanHeadShape(template, pitch_deg=pitch)([face]), truth, used) for pitch in PITCHES_DEG]
    return float(PITCHES_DEG[int(np.argmin(errors))])


def main() -> int:
    """Measure each sample, claim, and print the table."""
    benchmark = Benchmark("mean_head", seed=0)
    benchmark.parser.add_argument("assets", type=Path, help="folder with transform.pkl and pairs NAME.jpg, NAME.ply")
    assets: Path = benchmark.arguments().assets
    template = read_template(assets / MESH_FILE)
    mesh = read_mesh(assets / MESH_FILE)
    used = np.arange(len(template))
    for kept in mesh.kept:
        used = used[kept]
    names = sorted(path.stem for path in assets.glob("*.ply") if path.with_suffix(".jpg").is_file())
    if len(names) < 2:
        raise SystemExit(f"{assets} has {len(names)} pairs NAME.jpg and NAME.ply; at least two were expected.")
    faces = {name: read_face(read_image(assets / f"{name}.jpg")) for name in names}
    truths = {name: read_points(assets / f"{name}.ply") for name in names}
    pitches = {name: best_pitch_deg(faces[name], truths[name], template, used) for name in names}
    errors, held_out, neutral = [], [], []
    for name in names:
        others_deg = float(np.mean([pitches[other] for other in names if other != name]))
        errors.append(depth_error_m(MeanHeadShape(template)([faces[name]]), truths[name], used))
        held_out.append(depth_error_m(MeanHeadShape(template, pitch_deg=others_deg)([faces[name]]), truths[name], used))
        neutral.append(depth_error_m(template + CENTER_M + JOINT_M, truths[name], used))
        benchmark.note(
            name,
            f"{1000 * errors[-1]:.1f} mm at {PITCH_DEG:g} degrees, {1000 * held_out[-1]:.1f} mm at the other samples' "
            f"{others_deg:.1f}, neutral head {1000 * neutral[-1]:.1f} mm, best pitch {pitches[name]:.1f}",
        )
    benchmark.claim("mean_head.worst_error_m", max(errors), "<=", 0.02)
    benchmark.claim("mean_head.share_of_neutral", float(np.mean(errors) / np.mean(neutral)), "<=", 0.25)
    benchmark.claim("mean_head.held_out_share_of_neutral", float(np.mean(held_out) / np.mean(neutral)), "<=", 0.3)
    return benchmark.finish()


if __name__ == "__main__":
    sys.exit(main())
