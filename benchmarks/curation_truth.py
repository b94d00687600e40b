"""How often the stages of curation decide rightly, on clips of puppets whose truth is known.

    python benchmarks/curation_truth.py [--quick] [--folder FOLDER] [--detector transnet]

It writes mp4 and png files with known faults (noise, copies, burnt-in text, nobody, two people, cuts, fades, damaged
files, black bars, stills, shaking) and `truth.json`, runs every stage on every file, and claims precision and recall
of each filter, the F1 of shot boundaries and the pairwise F1 of identities. A filter is judged on all files that reach
it, not only on those that other filters keep.

Faces are read by dlib, and its domain is photographs: where a limit of a stage does not fit puppets (their faces are
small, and nearer to each other), `LIMITS` says so. The figures therefore test the code and show what the domain costs;
they do not say how well the default limits fit photographs.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from claims import Benchmark

from likeness.curation.people.duplicates import Duplicates, DuplicateSettings
from likeness.curation.people.identities import Identities, IdentitySettings
from likeness.curation.people.tracks import Tracks, TrackSettings
from likeness.curation.people.views import Views, ViewSettings
from likeness.curation.stage import Candidate, Source, SourceView, Stage, make_id
from likeness.curation.stages.borders import Borders, BorderSettings
from likeness.curation.stages.frames import with_facts
from likeness.curation.stages.guard import Guard, GuardSettings
from likeness.curation.stages.hashes import Hashes, HashSettings
from likeness.curation.stages.motion import Motion, MotionSettings
from likeness.curation.stages.quality import Quality, QualitySettings
from likeness.curation.stages.shots import Detector, Shots, ShotSettings
from likeness.curation.stages.text import TextOnScreen, TextSettings
from likeness.errors import MediaError
from likeness.media import is_video, read_image, read_video, write_image, write_video
from likeness.puppets import FPS, sample_clip, sample_image, sample_person, sample_two_person_clip
from likeness.weights.files import sha256_of

SIZE_PX = 128
NUM_FRAMES = 20
LIMITS: dict[str, Any] = {
    "guard": GuardSettings(min_side_px=64),
    "text": TextSettings(num_frames=2, side_px=480),
    "motion": MotionSettings(),
    "borders": BorderSettings(),
    "tracks": TrackSettings(engine="dlib", sample_fps=2.7, min_samples=3),
    "quality": QualitySettings(min_face_px=24, num_frames=3),
    # dlib finds puppets nearer to each other than people: tracks of one 0.14 to 0.36, of two 0.37 and more (seed 0).
    "identities": IdentitySettings(max_distance=0.6),
    "hashes": HashSettings(),
}
SHARES = {
    "clean": 0.24, "image": 0.08, "copy": 0.1, "text": 0.08, "nobody": 0.08, "two people": 0.08, "cuts": 0.08,
    "fades": 0.06, "damaged": 0.06, "bars": 0.06, "still": 0.04, "shaking": 0.04, "blurred": 0.03, "dark": 0.03,
}  # fmt: skip
"""Share of each kind of file."""


@dataclass(kw_only=True)
class Truth:
    """What is known of one file."""

    name: str
    kind: str
    people: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """First frame, end, and the people from left to right, by their seeds."""
    transitions: list[tuple[int, int]] = field(default_factory=list)
    """First frame and end of each; equal at a cut."""
    crop: tuple[int, int, int, int] | None = None
    copy_of: str = ""


class FileWriter:
    """Writes the files of each kind, with their truth."""

    def __init__(self, folder: Path, seed: int, num_people: int) -> None:
        self.folder, self.rng = folder, np.random.default_rng([seed, 9100])
        self.people = [int(number) for number in self.rng.integers(2**31, size=num_people)]
        self.truths: list[Truth] = []
        self._clean: dict[str, np.ndarray] = {}

    def write(self, kind: str, number: int) -> None:
        """Write the `number`-th file of a kind."""
        name = f"{kind.replace(' ', '_')}_{number:03d}"
        writers: dict[str, Callable[[str, int], Truth]] = {
            "image": self._image, "copy": self._copy, "nobody": self._nobody, "two people": self._two,
            "cuts": self._several_shots, "fades": self._several_shots, "damaged": self._damaged,
        }  # fmt: skip
        truth = writers[kind](name, number) if kind in writers else self._single(name, kind, number)
        self.truths.append(replace(truth, kind=kind))

    def _clip(self, person: int, num_frames: int = NUM_FRAMES) -> np.ndarray:
        seed = int(self.rng.integers(2**31))
        return sample_clip(seed, person=sample_person(person), num_frames=num_frames, size_px=SIZE_PX).frames

    def _person(self, number: int) -> int:
        return self.people[number % len(self.people)]

    def _save(self, name: str, frames: np.ndarray) -> str:
        write_video(self.folder / f"{name}.mp4", frames, FPS)
        return f"{name}.mp4"

    def _single(self, name: str, kind: str, number: int) -> Truth:
        """A clip of one person, with the fault of its kind."""
        person = self._person(number)
        frames = self._clip(person)
        faults: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "text": lambda clip: burn_in(clip, number), "still": lambda clip: clip[:1].repeat(len(clip), axis=0),
            "shaking": lambda clip: shake(clip, self.rng), "dark": lambda clip: clip // 6,
            "blurred": lambda clip: np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in clip]),
            "bars": lambda clip: add_bars(clip, number),
        }  # fmt: skip
        frames = faults.get(kind, lambda clip: clip)(frames)
        file = self._save(name, frames)
        if kind == "clean":
            self._clean[file] = frames
        crop = (0, 0, SIZE_PX, SIZE_PX)
        if kind == "bars":
            bar_px = bar_width(number)
            crop = (bar_px, 0, SIZE_PX + bar_px, SIZE_PX) if number % 2 else (0, bar_px, SIZE_PX, SIZE_PX + bar_px)
        return Truth(name=file, kind=kind, people=[(0, len(frames), [person])], crop=crop)

    def _image(self, name: str, number: int) -> Truth:
        person = self._person(number)
        picture = sample_image(int(self.rng.integers(2**31)), person=sample_person(person), size_px=192).frames[0]
        write_image(self.folder / f"{name}.png", picture)
        return Truth(name=f"{name}.png", kind="", people=[(0, 1, [person])])

    def _copy(self, name: str, number: int) -> Truth:
        """A clean clip, scaled, with noise, encoded again."""
        originals = [truth for truth in self.truths if truth.kind == "clean"]
        original = originals[number % len(originals)]
        side = int(SIZE_PX * (0.75, 0.625, 1.25)[number % 3]) // 2 * 2
        frames = np.stack(
            [cv2.resize(f, (side, side), interpolation=cv2.INTER_AREA) for f in self._clean[original.name]]
        )
        frames = (frames + self.rng.normal(0, 2, frames.shape)).clip(0, 255).astype(np.uint8)
        return replace(original, name=self._save(name, frames), copy_of=original.name, crop=None)

    def _nobody(self, name: str, number: int) -> Truth:
        """The upper corner of a clip, which moves: a background."""
        wide = cv2.resize(self._clip(self._person(number), 1)[0][:22], (4 * SIZE_PX, SIZE_PX))
        frames = np.stack([wide[:, 4 * k : 4 * k + SIZE_PX] for k in range(NUM_FRAMES)])
        return Truth(name=self._save(name, frames), kind="")

    def _two(self, name: str, number: int) -> Truth:
        left, right = self._person(2 * number), self._person(2 * number + 1)
        clip = sample_two_person_clip(
            int(self.rng.integers(2**31)),
            people=(sample_person(left), sample_person(right)),
            num_frames=NUM_FRAMES,
            size_px=SIZE_PX,
        )
        return Truth(name=self._save(name, clip.frames), kind="", people=[(0, NUM_FRAMES, [left, right])])

    def _several_shots(self, name: str, number: int) -> Truth:
        """Three shots of different people, joined by cuts, dissolves or fades through black."""
        kind = "cut" if name.startswith("cuts") else ("dissolve", "fade")[number % 2]
        people = [self._person(3 * number + k) for k in range(3)]
        shots = [self._clip(person, 20) for person in people]
        frames, transitions, spans, start = shots[0], [], [], 0
        for person, shot in zip(people[1:], shots[1:], strict=True):
            joined, transition = join(frames, shot, kind)
            spans.append((start, transition[0], [people[len(spans)]]))
            frames, start = joined, transition[1]
            transitions.append(transition)
            del person
        spans.append((start, len(frames), [people[-1]]))
        return Truth(name=self._save(name, frames), kind="", people=spans, transitions=transitions)

    def _damaged(self, name: str, number: int) -> Truth:
        """Truncated, overwritten, or no video at all."""
        path = self.folder / self._save(name, self._clip(self._person(number)))
        data = path.read_bytes()
        noise = self.rng.bytes(len(data))
        path.write_bytes((data[: len(data) // 2], noise, data[:40], b"#EXTM3U\n" + data)[number % 4])
        return Truth(name=path.name, kind="")


def burn_in(clip: np.ndarray, number: int) -> np.ndarray:
    """White letters with a dark edge at the bottom or the top."""
    words = ("I never said that", "Where are you now", "Breaking news", "Follow for more")[number % 4]
    y = (SIZE_PX - 8, 14)[number % 2]
    for frame in clip:
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(frame, words, (5, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, width, cv2.LINE_AA)
    return clip


def shake(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edge = 10
    padded = np.pad(clip, ((0, 0), (edge, edge), (edge, edge), (0, 0)), mode="reflect")
    shifts = rng.integers(0, 2 * edge + 1, (len(clip), 2))
    return np.stack([f[y : y + SIZE_PX, x : x + SIZE_PX] for f, (y, x) in zip(padded, shifts, strict=True)])


def bar_width(number: int) -> int:
    return (16, 24, 36)[number % 3]


def add_bars(clip: np.ndarray, number: int) -> np.ndarray:
    """Black bars at the sides or above and below."""
    edges = (bar_width(number), bar_width(number))
    return np.pad(clip, ((0, 0), (0, 0), edges, (0, 0)) if number % 2 else ((0, 0), edges, (0, 0), (0, 0)))


def join(one: np.ndarray, other: np.ndarray, kind: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Two shots, joined by a `cut`, a `dissolve` of 6 frames, or a `fade` through black of 8."""
    if kind == "cut":
        return np.concatenate([one, other]), (len(one), len(one))
    if kind == "dissolve":
        weight = np.linspace(0, 1, 8)[1:-1, None, None, None]
        mixed = ((1 - weight) * one[-6:] + weight * other[:6]).astype(np.uint8)
        return np.concatenate([one[:-6], mixed, other[6:]]), (len(one) - 6, len(one))
    weight = np.linspace(1, 0, 5)[1:, None, None, None]
    out, into = (one[-4:] * weight).astype(np.uint8), (other[:4] * weight[::-1]).astype(np.uint8)
    return np.concatenate([one[:-4], out, into, other[4:]]), (len(one) - 4, len(one) + 4)


def write_set(folder: Path, *, seed: int, count: int) -> list[Truth]:
    """Write about `count` files and `truth.json`."""
    writer = FileWriter(folder, seed, num_people=max(6, count // 8))
    for kind, share in SHARES.items():
        for number in range(max(2, round(share * count))):
            writer.write(kind, number)
    (folder / "truth.json").write_text(json.dumps([asdict(truth) for truth in writer.truths], indent=1) + "\n")
    return writer.truths


class LoadedView:
    """A source whose frames are all in memory."""

    def __init__(self, path: Path) -> None:
        is_clip = is_video(path)
        self.source = Source(path=path, sha256=sha256_of(path), kind="video" if is_clip else "image")
        self._frames, self.fps = read_video(path) if is_clip else (read_image(path)[None], 1.0)
        self.num_frames, self.height_px, self.width_px = self._frames.shape[:3]

    def frames(self, first: int, count: int, *, step: int = 1, max_side_px: int | None = None) -> np.ndarray:
        frames = self._frames[first : first + count : step]
        scale = 1.0 if max_side_px is None else min(1.0, max_side_px / max(self.width_px, self.height_px))
        if scale == 1.0:
            return frames
        size = (round(self.width_px * scale), round(self.height_px * scale))
        return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])

    def whole(self) -> Candidate:
        facts = {"kind": self.source.kind, "width_px": self.width_px, "height_px": self.height_px, "fps": self.fps}
        sha256 = self.source.sha256
        return Candidate(id=make_id(sha256, 0, self.num_frames), source=sha256, num_frames=self.num_frames, facts=facts)


@dataclass
class Found:
    """What the stages said of one file."""

    drops: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Reasons of each stage."""
    shots: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """First frame and length of the shots, by detector."""
    candidates: list[Candidate] = field(default_factory=list)


def curate(path: Path, stages: Sequence[Stage], detectors: Sequence[Detector], seconds: dict[str, float]) -> Found:
    """Run the stages on one file; what a stage drops goes on to the next ones, unless it has no face."""
    found = Found()
    try:
        view = LoadedView(path)
    except MediaError as error:
        found.drops["read"].add(str(error).splitlines()[0])
        return found
    candidates = [view.whole()]
    for detector in detectors[::-1]:
        split = Shots(ShotSettings(detector=detector, min_length_s=0.5))
        shots = timed(split, [view.whole()], view, f"shots ({detector})", seconds)
        found.shots[detector] = [(shot.first_frame, shot.num_frames) for shot in shots]
        candidates = shots
    for stage in stages:
        judged = timed(stage, [replace(one, dropped=None) for one in candidates], view, stage.name, seconds)
        for one in judged:
            if one.dropped is not None:
                found.drops[stage.name].add(one.dropped.reason)
        candidates = [one for one in judged if one.dropped is None or "boxes" in one.arrays or stage.name != "tracks"]
        candidates = [one for one in candidates if one.dropped is None or one.dropped.reason != "track too short"]
    found.candidates = [with_facts(replace(one, dropped=None), file=path.name) for one in candidates]
    return found


def timed(
    stage: Stage, candidates: list[Candidate], view: SourceView, name: str, seconds: dict[str, float]
) -> list[Candidate]:
    start = time.process_time()
    result = stage(candidates, view)
    seconds[name] += time.process_time() - start
    return result


def claim_rates(benchmark: Benchmark, name: str, found: set[Any], truth: set[Any]) -> None:
    """Claim precision and recall of a set."""
    right = len(found & truth)
    benchmark.claim(f"curation.{name}.precision", right / len(found) if found else float("nan"), ">=", 0.95)
    benchmark.claim(f"curation.{name}.recall", right / len(truth) if truth else float("nan"), ">=", 0.95)
    for label, wrong in (("wrong", found - truth), ("missed", truth - found)):
        if wrong:
            benchmark.note(f"{name}, {label}", ", ".join(sorted(map(str, wrong)))[:200])


def claim_filters(benchmark: Benchmark, truths: list[Truth], found: dict[str, Found]) -> None:
    filters: dict[str, tuple[str, set[str] | None, set[str]]] = {
        "damaged": ("read", None, {"damaged"}),
        "text": ("text", None, {"text"}),
        "still": ("motion", {"still"}, {"still"}),
        "shaking": ("motion", {"camera shakes"}, {"shaking"}),
        "nobody": ("tracks", {"no face"}, {"nobody"}),
        "blurred": ("quality", {"blurred"}, {"blurred"}),
        "dark": ("quality", {"too dark"}, {"dark"}),
    }
    for name, (stage, reasons, kinds) in filters.items():
        hit = {
            file for file, one in found.items()
            if one.drops.get(stage, set()) and (reasons is None or one.drops[stage] & reasons)
        }  # fmt: skip
        claim_rates(benchmark, name, hit, {truth.name for truth in truths if truth.kind in kinds})
    bars = {file for file, one in found.items() if any(c.facts.get("has_bars") for c in one.candidates)}
    claim_rates(benchmark, "bars", bars, {truth.name for truth in truths if truth.kind == "bars"})
    off = [
        max(abs(a - b) for a, b in zip(found[truth.name].candidates[0].facts["crop"], truth.crop, strict=True))
        for truth in truths
        if truth.kind == "bars" and truth.crop and found[truth.name].candidates
    ]
    benchmark.note("bars, largest error in px", max(off, default=float("nan")))
    crowds = {file for file, one in found.items() if any(c.facts["num_others"] for c in one.candidates)}
    claim_rates(benchmark, "two_people", crowds, {truth.name for truth in truths if truth.kind == "two people"})


def claim_shots(benchmark: Benchmark, truths: list[Truth], found: dict[str, Found], detector: Detector) -> None:
    """F1 of transitions: one is found where the gap between two shots touches it, with a tolerance of a frame."""
    hits, num_found, num_true = 0, 0, 0
    missed: dict[str, int] = defaultdict(int)
    for truth in truths:
        shots = sorted(found[truth.name].shots.get(detector, []))
        if not shots:
            continue
        gaps = [(a[0] + a[1], b[0]) for a, b in pairwise(shots)]
        open_gaps = list(gaps)
        for begin, end in truth.transitions:
            touching = [gap for gap in open_gaps if gap[0] <= end + 1 and gap[1] >= begin - 1]
            if touching:
                open_gaps.remove(touching[0])
                hits += 1
            else:
                missed[truth.kind] += 1
        num_found, num_true = num_found + len(gaps), num_true + len(truth.transitions)
    f1 = 2 * hits / max(num_found + num_true, 1)
    benchmark.claim(f"curation.shots.{detector}.f1", f1, ">=", 0.95)
    benchmark.note(f"shots, {detector}", f"{hits} of {num_true} found, {num_found - hits} wrong, missed {dict(missed)}")


def claim_people(benchmark: Benchmark, truths: list[Truth], candidates: list[Candidate]) -> None:
    """Pairwise precision, recall and F1 of identities."""
    by_name = {truth.name: truth for truth in truths}
    people = {one.id: true_person(by_name[one.facts["file"]], one) for one in candidates}
    known = [one for one in candidates if people[one.id] is not None]
    named = Identities(LIMITS["identities"])(known)
    together = [a.facts["person"] == b.facts["person"] for a, b in combinations(named, 2)]
    same = [people[a.id] == people[b.id] for a, b in combinations(named, 2)]
    right = sum(one and other for one, other in zip(together, same, strict=True))
    benchmark.claim("curation.identities.precision", right / max(sum(together), 1), ">=", 0.95)
    benchmark.claim("curation.identities.recall", right / max(sum(same), 1), ">=", 0.95)
    benchmark.claim("curation.identities.f1", 2 * right / max(sum(together) + sum(same), 1), ">=", 0.95)
    found = len({one.facts["person"] for one in named})
    benchmark.note("people", f"{found} found, {len(set(people.values()) - {None})} true, {len(named)} tracks")
    views = [len(one.facts["references"]) for one in Views(ViewSettings())(named) if one.num_frames > 1]
    benchmark.note("views of one track, mean", float(np.mean(views)))


def true_person(truth: Truth, candidate: Candidate) -> int | None:
    """Who is in the middle of a track; None where nobody should be."""
    middle = candidate.first_frame + candidate.num_frames // 2
    for first, end, people in truth.people:
        if first <= middle < end:
            x = float(np.median(candidate.arrays["boxes"][:, [0, 2]])) / candidate.facts["width_px"]
            return people[min(int(x * len(people)), len(people) - 1)]
    return None


def claim_duplicates(benchmark: Benchmark, truths: list[Truth], candidates: list[Candidate]) -> None:
    judged = Duplicates(DuplicateSettings())(candidates)
    files = {one.id: one.facts["file"] for one in candidates}
    origin = {truth.name: truth.copy_of or truth.name for truth in truths}
    pairs = {(files[one.id], files[str(one.dropped.value)]) for one in judged if one.dropped is not None}
    right = {pair for pair in pairs if origin[pair[0]] == origin[pair[1]]}
    here = {files[one.id] for one in candidates}
    groups: dict[str, set[str]] = defaultdict(set)
    for file in here:
        groups[origin[file]].add(file)
    expected = sum(len(group) - 1 for group in groups.values())
    benchmark.claim("curation.duplicates.precision", len(right) / len(pairs) if pairs else float("nan"), ">=", 0.95)
    benchmark.claim("curation.duplicates.recall", len(right) / max(expected, 1), ">=", 0.95)
    if pairs - right:
        benchmark.note("duplicates, wrong", str(sorted(pairs - right))[:200])


def main() -> int:
    benchmark = Benchmark("curation_truth", seed=1)
    benchmark.parser.add_argument("--folder", type=Path, help="where the files are written; a temporary one by default")
    benchmark.parser.add_argument("--count", type=int, help="about how many files; 400, or 60 with --quick")
    known: tuple[Detector, ...] = get_args(Detector)
    benchmark.parser.add_argument(
        "--detector", choices=known, default="transnet", help="whose shots the other stages get"
    )
    arguments = benchmark.arguments()
    count = arguments.count or (60 if arguments.quick else 400)
    detectors: list[Detector] = [arguments.detector, *(other for other in known if other != arguments.detector)]
    stages: list[Stage] = [
        Guard(LIMITS["guard"]), TextOnScreen(LIMITS["text"]), Motion(LIMITS["motion"]), Borders(LIMITS["borders"]),
        Tracks(LIMITS["tracks"]), Quality(LIMITS["quality"]), Hashes(LIMITS["hashes"]),
    ]  # fmt: skip
    seconds: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        truths = write_set(folder, seed=arguments.seed, count=count)
        seconds["writing files"] = time.process_time() - start
        found = {truth.name: curate(folder / truth.name, stages, detectors, seconds) for truth in truths}
    candidates = [one for file in found.values() for one in file.candidates]
    for name, spent in seconds.items():
        benchmark.note(f"seconds, {name}", round(spent, 1))
    claim_filters(benchmark, truths, found)
    for detector in detectors:
        claim_shots(benchmark, truths, found, detector)
    claim_duplicates(benchmark, truths, candidates)
    claim_people(benchmark, truths, candidates)
    kept = [one for one in candidates if not found[one.facts["file"]].drops]
    for fact in ("sharpness", "brightness", "motion", "shake", "face_px"):
        values = [one.facts[fact] for one in kept if fact in one.facts]
        benchmark.note(f"{fact} of kept, 5 % and 95 %", str(np.percentile(values, [5, 95]).round(3).tolist()))
    return min(benchmark.finish(), 1)


if __name__ == "__main__":
    sys.exit(main())
