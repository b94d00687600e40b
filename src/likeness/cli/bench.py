"""`likeness bench`: run a published protocol on your own pictures with any method."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.options import PRESET_HELP, Json, add_family
from likeness.cli.console.terminal import echo, escape_control_characters, print_json

if TYPE_CHECKING:
    from likeness.generation.inputs.settings import GenerationOptions

Folder = Annotated[Path, typer.Argument(help="Folder of the benchmark.")]


def register(app: typer.Typer) -> None:
    add_family(app, "bench", (create, run, score, report), about="Run a published protocol over your own pictures.")


def create(
    protocol_name: Annotated[
        str,
        typer.Argument(
            metavar="PROTOCOL",
            help="tiny, magic_mirror, magic_mirror_faces, prompt_sets, fantasy_id, opens2v_human, or a TOML file.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new benchmark.")],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Your pictures: GROUP/NAME/*.jpg, or NAME/*.jpg where groups do not matter."),
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(help="Prompts instead of the protocol's: VBench's *_longer.txt, or TOML."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of noise, and of synthetic people (puppets).")] = 0,
    allow_fewer: Annotated[
        bool, typer.Option("--allow-fewer", help="Go on with fewer people than the protocol wants.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures without a usable face.")] = False,
    as_json: Json = False,
) -> None:
    """Make a benchmark: references, prompts, seeds."""
    from likeness.app.bench.protocols import read_protocol, replace_prompts
    from likeness.cli.console.progress import spinner

    protocol = read_protocol(protocol_name)
    if prompts:
        protocol, notes = replace_prompts(protocol, prompts)
        for note in notes:
            print(escape_control_characters(note, lines=False), file=sys.stderr)
    with spinner("Reading the faces", is_quiet=as_json):
        from likeness.app.bench.create import create_bench

        bench = create_bench(
            output, protocol_name, protocol, pictures, seed=seed, allow_fewer=allow_fewer, skip_bad=skip_bad
        )
    if as_json:
        print_json({"bench": str(output), **bench.model_dump(mode="json")})
        return
    fewer = "" if bench.is_complete else f" (the protocol wants {protocol.num_identities})"
    echo(
        f"{output}: {len(bench.identities)} people{fewer}, {len(bench.cases)} videos to make. "
        f"Next: `likeness bench run {output}`"
    )


def run(
    bench: Folder,
    preset: Annotated[str, typer.Option(help=PRESET_HELP)] = "tiny",
    method: Annotated[str, typer.Option(help="How the face enters the model.")] = "magic_mirror",
    name: Annotated[str | None, typer.Option(help="Of the run; PRESET-METHOD by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; the preset's by default.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Weight of the prompt; 1 is none.")] = None,
    identity_scale: Annotated[
        float | None, typer.Option(help="Weight of the face; 0 ignores it; by default what suits the preset.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Length, a multiple of eight plus one.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Another diffusers folder or hub name.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")] = None,
    regenerate: Annotated[bool, typer.Option("--remake", help="Generate changed cases again.")] = False,
    as_json: Json = False,
) -> None:
    """Make the videos that are not there yet, and measure all. Interrupted, it goes on where it stopped."""
    from likeness.app.bench.manifest import Bench, run_lock
    from likeness.cli.console.progress import progress, spinner
    from likeness.cli.generate import check_folders, load
    from likeness.generation.inputs.settings import resolve_settings
    from likeness.generation.loading.presets import METHODS, find_preset, require_known
    from likeness.generation.loading.resolve_weights import check_frames, check_weights

    choices: GenerationOptions = {
        "steps": steps,
        "guidance": guidance,
        "identity_scale": identity_scale,
        "frames": frames,
    }
    chosen = find_preset(preset)
    resolved = resolve_settings(chosen, dict(choices))
    require_known("method", method, METHODS)
    check_folders(backbone, adapter)
    check_frames(resolved.frames, chosen, method=method, backbone=backbone, adapter=adapter)
    Bench.load(bench)
    check_weights(chosen, method, backbone, adapter)
    system = name or f"{preset}-{method}"
    with run_lock(bench, system):  # Checked before the models are loaded: another process may hold it.
        pass
    with spinner("Loading the models", is_quiet=as_json):
        likeness = load(preset, method, backbone=backbone, adapter=adapter)
        from likeness.app.bench.run import run_bench

    settings = likeness.settings(**choices)
    with progress("Making videos", done_label="Made", is_quiet=as_json) as on_case:
        made = run_bench(bench, likeness, system=system, settings=settings, regenerate=regenerate, on_case=on_case)
    _measure(bench, system, made=made, as_json=as_json)


def score(
    bench: Folder,
    name: Annotated[str, typer.Argument(help="A folder in `runs/` of the benchmark, videos in its `videos/`.")],
    as_json: Json = False,
) -> None:
    """Measure the videos of any system: put them into BENCH/runs/NAME/videos, named after the cases."""
    _measure(bench, name, made=0, as_json=as_json)


def report(
    bench: Folder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; report.html in the benchmark by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare all measured runs on one page."""
    import json

    from likeness.app.bench.manifest import CASES, MANIFEST, Bench
    from likeness.app.bench.report import make_bench_report, write_bench_page
    from likeness.app.folders import check_report_path
    from likeness.evaluation.results.statistics import format_estimate
    from likeness.files import write_text

    manifest, page = Bench.load(bench), output or bench / "report.html"
    json_path = check_report_path(page, root=bench, reserved_names=[MANIFEST, CASES])
    results = make_bench_report(bench)
    write_bench_page(page, manifest, results)
    write_text(json_path, json.dumps(results.to_dict(), indent=2) + "\n")
    if as_json:
        print_json(results.to_dict())
        return
    for system, values in results.means.items():
        echo(f"{escape_control_characters(system, lines=False)}:")
        for metric, value in values.items():
            echo(f"  {metric} {format_estimate(value)}, {results.counts[system][metric]} videos")
    echo(page)


def _measure(bench: Path, system: str, *, made: int, as_json: bool) -> None:
    from likeness.app.bench.run import score_bench
    from likeness.cli.console.progress import progress
    from likeness.cli.console.scores import report_failed

    with progress("Measuring", done_label="Measured", is_quiet=as_json) as on_video:
        result = score_bench(bench, system, on_video=on_video)
    (measured,) = result.systems
    if as_json:
        scores = {metric: summary.mean for metric, summary in measured.scores.items()}
        record = {
            "run": system,
            "made": made,
            "videos": measured.num_videos,
            "failed": measured.num_failed,
            "scores": scores,
        }
        print_json(record)
    else:
        num_measured = measured.num_videos - measured.num_failed
        echo(
            f"{system}: {made} videos made now, {num_measured} of {measured.num_videos} measured. "
            f"Next: `likeness bench report {bench}`"
        )
    report_failed(result.videos, is_quiet=as_json)
