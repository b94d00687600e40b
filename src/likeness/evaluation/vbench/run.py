"""Run the real VBench on our videos in its own environment and read its results.

VBench (arXiv:2311.17982; version 0.1.5) measures custom videos with `vbench evaluate --mode=custom_input`:

- It starts the measuring process through a shell and drops its exit code, so it returns 0 after a failure. Only the
  file `results_TIME_eval_results.json` proves a result: `{dimension: [mean, [{"video_path", "video_results"}]]}`.
- It does not quote most paths, so it runs inside our folder and gets file names only.
- It reads every `.mp4` and `.gif` of a folder, and takes prompts from a JSON of file names or from the file's name.

Each call measures one dimension on the videos of all systems; a failed dimension does not affect the others. Results
are cached by the videos' bytes and prompts, so a killed run resumes with the next dimension.
"""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from likeness.errors import ConfigError
from likeness.evaluation.metrics.base import VBENCH
from likeness.evaluation.results.records import EvaluationResult, MetricRecord, VideoResult, summarize
from likeness.evaluation.vbench.environment import VERSION, variables_of
from likeness.files import lock, read_json, write_text

DIMENSIONS = {
    "subject_consistency": "cosine",
    "background_consistency": "cosine",
    "motion_smoothness": "share",
    "dynamic_degree": "share",
    "aesthetic_quality": "share of 10",
    "imaging_quality": "share of 100",
    "temporal_flickering": "share",
    "overall_consistency": "cosine",
}
"""Dimensions that VBench supports for custom videos, and their units. The last needs prompts."""
NEEDS_PROMPTS = ("overall_consistency",)
DEFAULT = tuple(DIMENSIONS)[:6]
"""Dimensions that VBench documents for custom videos."""
PREFIX = "vbench_"
_SCALE = {"imaging_quality": 0.01}
"""VBench divides the mean by 100, but not the values of single videos."""
_TAIL_LINES = 8
_GRACE_S = 10
_CAUSE = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")

OnDimension = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class VBenchResult:
    """Results of VBench."""

    values: Mapping[str, Mapping[tuple[str, str], float]]
    """Dimension -> (system, video)."""
    totals: Mapping[str, float]
    """VBench's own mean over all videos; for background consistency over all pairs of frames."""
    failed: Mapping[str, str]
    """Dimension -> why it has no result, and what to do."""


def run_vbench(
    command: Path,
    videos: Sequence[VideoResult],
    folder: Path,
    dimensions: Sequence[str] = DEFAULT,
    *,
    on_dimension: OnDimension | None = None,
) -> VBenchResult:
    """Measure dimensions of videos.

    Args:
        command: VBench's executable, see `environment.executable`.
        videos: Those without an error are measured.
        folder: For links, logs and what VBench writes.
        dimensions: Names in `DIMENSIONS`.
        on_dimension: Called with the number of finished and of all dimensions.

    Raises:
        ConfigError: A dimension is unknown, or needs prompts that are not there.
        LockedError: Another evaluation runs VBench in that folder.
    """
    check_dimensions(dimensions)
    busy = f"VBench runs in {folder} already ({{owner}}). Wait until it has ended, or choose another `--output`."
    with lock(folder / ".vbench.lock", busy=busy):
        return _run_dimensions(command, videos, folder, dimensions, on_dimension)


def _run_dimensions(
    command: Path,
    videos: Sequence[VideoResult],
    folder: Path,
    dimensions: Sequence[str],
    on_dimension: OnDimension | None,
) -> VBenchResult:
    links = {f"v{number:05d}.mp4": video for number, video in enumerate(v for v in videos if v.error is None)}
    values: dict[str, dict[tuple[str, str], float]] = {}
    totals: dict[str, float] = {}
    failed: dict[str, str] = {}
    for number, dimension in enumerate(dimensions, start=1):
        own = {link: v for link, v in links.items() if v.prompt or dimension not in NEEDS_PROMPTS}
        if not own:
            lack = "prompts" if links else "readable videos"
            failed[dimension] = f"VBench's `{dimension}` needs {lack}, and there are none."
        else:
            measured = _measure(command, own, folder / dimension, dimension)
            if isinstance(measured, str):
                failed[dimension] = measured
            else:
                totals[dimension], found = measured
                values[dimension] = {(own[link].system, own[link].name): found[link] for link in own}
        if on_dimension is not None:
            on_dimension(number, len(dimensions))
    return VBenchResult(values=values, totals=totals, failed=failed)


def check_dimensions(dimensions: Sequence[str]) -> None:
    """Refuse dimensions that VBench does not support for custom videos.

    Raises:
        ConfigError: A dimension is unsupported.
    """
    for name in dimensions:
        if name not in DIMENSIONS:
            raise ConfigError(
                f"VBench does not measure `{name}` on custom videos. Use some of {', '.join(DIMENSIONS)}."
            )


def add_vbench(result: EvaluationResult, vbench: VBenchResult) -> EvaluationResult:
    """Add VBench's scores to the result, under names that begin with `vbench_`."""
    videos = tuple(
        replace(
            video,
            scores=dict(video.scores)
            | {PREFIX + name: own.get((video.system, video.name)) for name, own in vbench.values.items()},
        )
        if video.error is None
        else video
        for video in result.videos
    )
    systems = tuple(
        replace(
            system,
            scores=dict(system.scores)
            | {
                PREFIX + name: summarize([v.scores.get(PREFIX + name) for v in videos if v.system == system.name])
                for name in vbench.values
            },
        )
        for system in result.systems
    )
    return replace(
        result,
        metrics=dict(result.metrics) | {PREFIX + name: _record(name) for name in vbench.values},
        left_out=dict(result.left_out) | {PREFIX + name: why for name, why in vbench.failed.items()},
        videos=videos,
        systems=systems,
        settings=dict(result.settings) | {"vbench": {"version": VERSION, "totals": dict(vbench.totals)}},
    )


def _record(dimension: str) -> MetricRecord:
    return MetricRecord(
        name=PREFIX + dimension,
        title=f"VBench {dimension.replace('_', ' ')}",
        unit=DIMENSIONS[dimension],
        direction="higher",
        level="video",
        averaged="as in VBench",
        source=f"{VBENCH}, version {VERSION}, run as it is",
    )


def _measure(
    command: Path, links: Mapping[str, VideoResult], folder: Path, dimension: str
) -> tuple[float, dict[str, float]] | str:
    """VBench's mean and its score of each link, or why there are none."""
    inputs = {link: [video.sha256, video.prompt] for link, video in links.items()}
    kept = folder / "kept.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(kept)
        if record["inputs"] == inputs and record["version"] == VERSION:
            return record["total"], record["values"]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "videos").mkdir(parents=True)
    for link, video in links.items():
        (folder / "videos" / link).symlink_to(Path(video.path).resolve())
    words = ["evaluate", "--videos_path", "videos", "--dimension", dimension, "--mode", "custom_input"]
    words += ["--output_path", "results", "--full_json_dir", "unused.json"]
    prompts = {link: video.prompt for link, video in links.items() if video.prompt}
    if len(prompts) == len(links):  # VBench needs prompts for all videos or none.
        (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
        words += ["--prompt_file", "prompts.json"]
    code = _run(command, words, folder)
    found = _read(folder, dimension, links)
    if isinstance(found, str):
        return _explain(found, code, folder, dimension)
    record = {"version": VERSION, "inputs": inputs, "total": found[0], "values": found[1]}
    write_text(kept, json.dumps(record))
    return found


def _run(command: Path, words: Sequence[str], folder: Path) -> int:
    """Run VBench with its output in a log. Any interruption also ends all its processes, which would keep the GPU."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [str(command), *words],
            cwd=folder,
            env=variables_of(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def _read(folder: Path, dimension: str, links: Mapping[str, VideoResult]) -> tuple[float, dict[str, float]] | str:
    """VBench's scores from its result file, or what is wrong with it."""
    files = sorted((folder / "results").glob("*_eval_results.json"))
    if not files:
        return "it wrote no result"
    try:
        total, rows = read_json(files[-1])[dimension]
        scale = _SCALE.get(dimension, 1.0)
        found = {Path(row["video_path"]).name: scale * float(row["video_results"]) for row in rows}
        total = float(total)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its result {files[-1].name} has an unexpected layout ({error!r})"
    absent = [link for link in links if link not in found]
    if absent:
        return f"its result lacks {len(absent)} of {len(links)} videos, {links[absent[0]].path} among them"
    if not all(math.isfinite(value) for value in (total, *found.values())):
        return "its result holds numbers that are not finite"
    return total, {link: found[link] for link in links}


def _explain(problem: str, code: int, folder: Path, dimension: str) -> str:
    log = folder / "log.txt"
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # torch's launcher ends with its own report; the cause is the last line of a traceback above it.
    causes = [line for line in lines if _CAUSE.match(line) and "ChildFailedError" not in line]
    said = causes[-1:] or lines[-_TAIL_LINES:]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return (
        f"VBench's `{dimension}` {how}, and {problem}. It needs an NVIDIA GPU with free memory, and internet access to "
        f"fetch its models. Last output: {' | '.join(said) or 'nothing'}. See {log}; fix that and run the same command "
        "again: the results of other dimensions are kept."
    )
