"""A separate virtual environment for VBench, whose pins (transformers 4.33, numpy 1) conflict with ours.

`set_up` creates it in `$LIKENESS_HOME/environments/vbench`. Networks are fetched by VBench itself when a
dimension first needs them, into `~/.cache/vbench` (or `$VBENCH_CACHE_DIR`), with wget, git and unzip.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from likeness.errors import ResourceError
from likeness.weights import home

VERSION = "0.1.5"
REQUIREMENTS = (
    f"vbench=={VERSION}",
    # VBench names no torch. 2.3.1 is built for CUDA 12.1, the newest it was made for, and still loads its checkpoints
    # (from 2.6 on torch refuses pickles by default); torchvision must match it.
    "torch==2.3.1",
    "torchvision==0.18.1",
    "numpy<2",
    # Its dependency openai-clip imports pkg_resources, which later versions no longer have.
    "setuptools<70",
)
PYTHONS = ((3, 9), (3, 10), (3, 11))
"""Versions for which transformers 4.33.2 finds tokenizers as wheels."""
SETUP = "likeness eval --vbench-setup"
_READY = "likeness_ready"
"""A file that is written last, to recognize an incomplete environment."""


def environment() -> Path:
    """The folder of VBench's environment."""
    return home() / "environments" / "vbench"


def executable(folder: Path) -> Path:
    """VBench's command in an environment.

    Raises:
        ResourceError: The environment is not there or not whole.
    """
    command = _scripts(folder) / "vbench"
    if not (folder / _READY).is_file() or not command.is_file():
        state = "only half made" if folder.is_dir() else "not there"
        raise ResourceError(
            f"VBench's environment {folder} is {state}. Make it with `{SETUP}` (about 6 GB; an NVIDIA GPU is needed)."
        )
    return command


def set_up(folder: Path, on_line: Callable[[str], None], python: str | None = None) -> Path:
    """Create the environment; a second call completes a partial one.

    Args:
        folder: The environment.
        on_line: Called with each line of output.
        python: An interpreter of a version in `PYTHONS`; None takes the running one.

    Raises:
        ResourceError: The interpreter has another version, the path contains a space, or pip failed.
    """
    if any(letter.isspace() for letter in str(folder)):
        raise ResourceError(
            f"VBench cannot be installed in {folder}: it passes its path to a shell without quotes. Set "
            "LIKENESS_HOME to a folder without spaces."
        )
    python = python or os.environ.get("LIKENESS_VBENCH_PYTHON") or sys.executable
    _check_python(python)
    (folder / _READY).unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    constraints = folder.parent / "vbench-build.txt"
    constraints.write_text("setuptools<70\n")  # Also for isolated builds of packages without wheels.
    variables = _variables(folder) | {
        "PIP_CONSTRAINT": str(constraints),
        "PIP_BUILD_CONSTRAINT": str(constraints),
    }
    _run([python, "-m", "venv", str(folder)], os.environ.copy(), on_line)
    pip = [str(_scripts(folder) / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    _run([*pip, "setuptools<70", "wheel"], variables, on_line)
    _run([*pip, *REQUIREMENTS], variables, on_line)
    _run([str(_scripts(folder) / "vbench"), "evaluate", "--help"], variables, on_line)
    (folder / _READY).write_text("\n".join(REQUIREMENTS) + "\n")
    return executable(folder)


def variables_of(command: Path) -> dict[str, str]:
    """Environment variables for the command, which calls `python` by name and must find its own."""
    return _variables(command.parent.parent)


def _variables(folder: Path) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    variables["PATH"] = f"{_scripts(folder)}{os.pathsep}{variables.get('PATH', '')}"
    variables["VIRTUAL_ENV"] = str(folder)
    return variables


def _scripts(folder: Path) -> Path:
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


def _check_python(python: str) -> None:
    names = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    if shutil.which(python) is None:
        raise ResourceError(f"There is no Python at {python}. Name one of {names} in LIKENESS_VBENCH_PYTHON.")
    asked = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if said not in ([str(major), str(minor)] for major, minor in PYTHONS):
        raise ResourceError(
            f"{python} is Python {'.'.join(said) or 'of unknown version'}; VBench's pins have wheels for {names}. "
            "Name such a Python in LIKENESS_VBENCH_PYTHON."
        )


def _run(command: list[str], variables: dict[str, str], on_line: Callable[[str], None]) -> None:
    last: list[str] = []
    with subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = [*last[-11:], line.rstrip()]
            on_line(line.rstrip())
    if process.returncode:
        tail = "\n".join(f"  {line}" for line in last)
        raise ResourceError(
            f"Creating VBench's environment failed at `{' '.join(command[:4])} ...` "
            f"(exit {process.returncode}):\n{tail}\n"
            f"Check network and disk, then run `{SETUP}` again; what is here is kept."
        )
