"""Gives absurd numbers to every option of every command that takes one, to stories, recipes, protocols and questions.

Options are read from the command line itself, settings of recipes from `recipes/tiny`, so that new ones are tried as
well. Each value must be refused with a message within seconds, or do no harm: a value that passes the checks before
torch is imported runs as a whole, with a limit on memory and time.
"""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from trials import REFUSED, ROOT, Command, Tally, benchmark_of, damaged
from typer.models import OptionInfo
from verbs import PROMPT, STORY, make_material, with_output

from likeness.training.run import MALLOC

WHOLE = ("-1", "0", "1000000000", "1000000000000", str(2**31), str(2**63), str(-(2**63)), "9" * 400, "9" * 5000, "1e9")
REAL = ("-1", "-1e-300", "nan", "inf", "-inf", "1e9", "1e308", "1e999", "9" * 400, "1e-320")
TEXTS = ("", " ", "0x10", "1_000_000_000_000", "\u0661\u0662", "--1", "1,5")
BLOCKS = ("0-99999999999", "9" * 50, "5-1", "-1", "0-1-2", ",".join("1" * 5000), "1e9", "0,999999999999")
SHAPES = ("puppet:-1", f"puppet:{10**30}", "mean_head:nan", "mean_head:1e308", "mean_head:", "puppet:x")
QUESTIONS = """
title = "Small"
lowest = 1
highest = 5
[[questions]]
name = "a"
title = "A"
text = "How?"
"""
LONGEST_S = 60.0
SPARE_BYTES = 4 * 2**30
"""Memory that a command may take on top of that of this process."""
EARLY = """
import importlib.abc, json, sys
class Reached(BaseException): pass
class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "dlib", "numba", "diffusers", "transformers", "matplotlib"):
            raise Reached(name)
sys.meta_path.insert(0, Hook())
from likeness.cli import main
told = []
for words in json.load(sys.stdin):
    try:
        code = main(words)
    except Reached:
        code = "reached"
    except BaseException as error:
        code = "escaped " + repr(error)[:200]
    told.append(code)
print("\\n" + json.dumps(told))
"""
"""Runs commands in one process and says with which exit code each ends, or that it begins with the work."""


def bases(material: Path) -> dict[str, list[str]]:
    """Words of a command that does nothing wrong, to which an option is added."""
    me, checkpoint = str(material / "me.png"), str(material / "checkpoint")
    systems = [str(material / "systems" / name) for name in ("ours", "theirs")]
    references = ["--references", str(material / "references")]
    quick = ["--steps", "2", "--frames", "9", "--backbone", checkpoint]
    return {
        "generate": ["generate", PROMPT, "--face", me, "-o", "clip.mp4", "--overwrite", *quick],
        "story": ["story", "story.toml", "--face", me, "-o", "story", "--overwrite", "--backbone", checkpoint],
        "demo": ["demo", "-o", "demo", "--overwrite", "--steps", "1"],
        "train run": ["train", "run", "recipe.toml", "-o", "run"],
        "train precompute": ["train", "precompute", "recipe.toml", "-o", "run"],
        "train plan": ["train", "plan", str(ROOT / "recipes" / "cogvideox_2b" / "magic_mirror.toml")],
        "character add": ["character", "add", "ana", "--face", me, "--consent", "yes", "--replace"],
        "puppets": ["puppets", "sheet.png", "--overwrite", "--people", "1"],
        "compare": ["compare", me, me],
        "doctor": ["doctor"],
        "eval": ["eval", systems[0], *references, "-o", "results", "--metrics", "face_rate"],
        "bench create": [
            "bench", "create", str(material / "protocol.toml"), "--pictures", str(material / "pictures"), "-o", "b",
        ],
        "bench run": ["bench", "run", "bench", *quick],
        "study create": ["study", "create", *systems, *references, "-o", "s"],
        "study serve": ["study", "serve", "study"],
        "study report": ["study", "report", "study_answered", "-o", "report.html"],
    }  # fmt: skip


def numeric_options() -> Iterator[tuple[str, str, bool]]:
    """Command, option, and whether it takes whole numbers alone."""
    from likeness.cli import app

    yield from _options_of(app, "")


def _options_of(family: typer.Typer, name: str) -> Iterator[tuple[str, str, bool]]:
    for group in family.registered_groups:
        if group.typer_instance is not None:
            yield from _options_of(group.typer_instance, group.typer_instance.info.name or str(group.name))
    for command in family.registered_commands:
        function = command.callback
        assert function is not None
        command_name = f"{name} {command.name or function.__name__}".strip()
        for parameter, hint in get_type_hints(function, include_extras=True).items():
            kinds = {*get_args(get_args(hint)[0]), get_args(hint)[0]} if get_args(hint) else set()
            if kinds & {int, float}:
                option = next((one for one in get_args(hint)[1:] if isinstance(one, OptionInfo)), None)
                assert option is not None, f"{command_name} has a numeric argument: {parameter}"
                long = [word for word in option.param_decls or () if word.startswith("--")]
                yield command_name, long[0] if long else f"--{parameter.replace('_', '-')}", int in kinds


def cases(material: Path, *, is_quick: bool) -> dict[str, list[list[str]]]:
    """Words by command."""
    found: dict[str, list[list[str]]] = {}
    for name, option, is_whole in numeric_options():
        values = [*(WHOLE if is_whole else REAL), *TEXTS]
        for value in values[:3] if is_quick else values:
            # A second `--steps` replaces the first.
            found.setdefault(name, []).append([*bases(material)[name], f"{option}={value}"])
    generate = bases(material)["generate"]
    found["generate"] += [[*generate, f"--identity-blocks={value}"] for value in BLOCKS]
    shape = [*generate, "--method", "fantasy_id"]
    found["generate"] += [[*shape, f"--shape={value}"] for value in SHAPES]
    settings = tomllib.loads(STORY) | {"seed": 1, "guidance": 2.0, "identity_scale": 1.0, "identity_start": 0.0}
    settings |= {"identity_end": 1.0, "best_of": 1, "min_similarity": 0.5}
    for name, value in settings.items():
        if isinstance(value, int | float):
            values = [*WHOLE, "nan", "inf", "1e308"] if isinstance(value, int) else [*REAL]
            for place in (name, f"shots.0.{name}"):
                for absurd in values[:3] if is_quick else values:
                    found["story"].append([*bases(material)["story"], "--set", f"{place}={absurd}"])
    found["story"] += [[*bases(material)["story"], "--set", f"identity_blocks={value}"] for value in BLOCKS]
    found["story"] += [
        [*bases(material)["story"], "--set", f"shots.{index}.seed=1"] for index in ("-1", "9" * 30, "1e3", "")
    ]
    return found


def recipe_cases(folder: Path, *, is_quick: bool) -> list[list[str]]:
    """Every number of every recipe that ships."""
    from likeness.training import recipes

    found = []
    for path in sorted((ROOT / "recipes" / "tiny").glob("*.toml"))[: 2 if is_quick else None]:
        settings = recipes.read(path, ()).model_dump(mode="json")
        for place, value in _leaves(settings, ""):
            values = [*WHOLE[:8]] if isinstance(value, int) else [*REAL]
            for absurd in values[:2] if is_quick else values:
                found.append(["train", str(path), "-o", str(folder / "run"), "--set", f"{place}={absurd}"])
    return found


def _leaves(value: Any, place: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{place}.{key}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def file_cases(material: Path, folder: Path) -> dict[str, list[list[str]]]:
    """Protocols of benchmarks and questionnaires of studies as files."""
    protocol = (material / "protocol.toml").read_text()
    found: dict[str, list[list[str]]] = {"bench create": [], "study create": []}
    for kind, text, option in (("bench create", protocol, None), ("study create", QUESTIONS, "--questions")):
        for match in re.finditer(r"= (\d+)", text):
            for number, value in enumerate([*WHOLE[:8], "nan", "inf", "1e308"]):
                file = folder / f"{kind.replace(' ', '_')}_{match.start()}_{number}.toml"
                file.write_text(text[: match.start(1)] + value + text[match.end(1) :])
                words = bases(material)[kind]
                words = [*words, option, str(file)] if option else [*words[:2], str(file), *words[3:]]
                found[kind].append(words)
    return found


def at_own_output(words: list[str], number: int) -> list[str]:
    """Commands that refuse a folder that was filled before get one each."""
    if words[1:2] != ["create"]:
        return words
    return with_output(words, lambda output: f"{output}{number}")


def ask_early(words: list[list[str]], folder: Path) -> list[Any]:
    """Exit code of each command, or "reached" if it begins with the work."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY], input=json.dumps(words), cwd=folder, capture_output=True, text=True, check=False,
        timeout=600, env=os.environ | MALLOC | {"LIKENESS_HOME": str(folder / "home"), "COLUMNS": "200"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, resource.RLIM_INFINITY))


def attempt(what: str, words: list[list[str]], folder: Path, tally: Tally) -> None:
    """Try all words: what is not refused early runs as a whole."""
    words = [at_own_output(one, number) for number, one in enumerate(words)]
    codes = ask_early(words, folder)
    for one, code in zip(words, codes, strict=True):
        value = one[-1] if len(one[-1]) < 60 else f"{one[-1][:57]}..."
        if code != "reached":
            faults = [] if code in (0, *REFUSED) else [f"{value}: {code}"]
            tally.add(what, faults, outcome="harmless" if code == 0 else "refused before torch is imported")
            continue
        if re.search(r"\bseed=", one[-1]):
            tally.add(what, [], outcome="a valid seed")
            continue
        ended = Command(one, folder, log=folder.with_suffix(".log"), setup=limit_memory).end(LONGEST_S)
        faults = [f"{value}: {fault}" for fault in ended.faults([0, *REFUSED]) + damaged(folder)]
        tally.add(what, faults, outcome="harmless" if ended.code == 0 else "refused later")
        if ended.code == 0:
            tally.accepted.setdefault(what, []).append(value)


def main() -> int:
    benchmark = benchmark_of("option_values", ["generate", "story", "...", "recipes"])
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    parent, tally = arguments.output.absolute(), Tally(benchmark)
    material = make_material(parent / "material", arguments.material)
    folder = parent / "place"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bench", "study", "study_answered"):  # Copies, because the material serves other scripts.
        shutil.copytree(material / name, folder / name, dirs_exist_ok=True)
    (folder / "story.toml").write_text(STORY)
    (folder / "recipe.toml").write_text((ROOT / "recipes" / "tiny" / "vae.toml").read_text())
    by_command = cases(material, is_quick=arguments.quick)
    if not arguments.quick:
        for name, words in file_cases(material, parent).items():
            by_command[name] += words
    for name, words in by_command.items():
        if not arguments.only or name in arguments.only:
            attempt(f"numbers of {name}", words, folder, tally)
            tally.done(f"numbers of {name}")
    if not arguments.only or "recipes" in arguments.only:
        check_recipes(folder, tally, is_quick=arguments.quick)
    return tally.finish()


def check_recipes(folder: Path, tally: Tally, *, is_quick: bool) -> None:
    """Recipes need torch to be read, so they are read in this process; nothing is trained."""
    from likeness.errors import LikenessError
    from likeness.training import recipes
    from likeness.training.recipes import estimate

    what = "numbers of recipes"
    for words in recipe_cases(folder, is_quick=is_quick):
        value = f"{Path(words[1]).stem} {words[-1]}"[:100]
        try:
            settings = recipes.read(Path(words[1]), [words[-1]])
            estimate.check_resources(settings, folder / "cache", processes=1)
        except LikenessError:
            tally.add(what, [], outcome="refused")
        except Exception as error:
            tally.add(what, [f"{value}: {type(error).__name__} {str(error)[:100]}"])
        else:
            tally.add(what, [], outcome="passes")
            tally.accepted.setdefault(what, []).append(value)
    tally.done(what)


if __name__ == "__main__":
    sys.exit(main())
