"""Count imports between the modules of each package and between its sub-packages.

    python tests/import_counts.py [--detail PACKAGE]

An import between sub-packages counts once for each ordered pair of them; a module directly in the package counts as a
sub-package of its own. Two-way pairs (circles) are listed. `tests/test_layers.py` holds the limits.
"""

import argparse
import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "likeness"
PACKAGES = ("generation", "training", "evaluation", "curation", "adapters", "identity", "faces", "puppets", "app")


def modules() -> dict[str, Path]:
    """Every module below `likeness` by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, at module level, inside functions and for type checking."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "likeness":
            parent = (node.module or "").removeprefix("likeness").removeprefix(".")
            for alias in node.names:
                child = f"{parent}.{alias.name}" if parent else alias.name
                found.add(child if child in known else parent)
    return found


def sub_package(module: str, package: str) -> str:
    """The first name below `package`."""
    return module.removeprefix(f"{package}.").split(".")[0]


def count(package: str) -> tuple[set[tuple[str, str]], dict[tuple[str, str], list[tuple[str, str]]]]:
    """Imports between modules of a package, and the same by pair of sub-packages."""
    known = modules()
    files: set[tuple[str, str]] = set()
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for module, path in known.items():
        if not module.startswith(f"{package}."):
            continue
        for target in imports_of(path, known):
            if target.startswith(f"{package}.") and target != module:
                files.add((module, target))
                ends = sub_package(module, package), sub_package(target, package)
                if ends[0] != ends[1]:
                    pairs.setdefault(ends, []).append((module, target))
    return files, pairs


def circles(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Sub-packages that import each other."""
    pairs = set(pairs)
    return sorted(f"{a} <-> {b}" for a, b in pairs if a < b and (b, a) in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detail", choices=PACKAGES, help="list every import between sub-packages of one package")
    arguments = parser.parse_args()
    print(f"{'package':12} {'modules':>8} {'sub-packages':>13}  circles")
    for package in PACKAGES:
        files, pairs = count(package)
        print(f"{package:12} {len(files):8} {len(pairs):13}  {', '.join(circles(pairs)) or 'none'}")
        if package == arguments.detail:
            for (a, b), between in sorted(pairs.items()):
                print(f"    {a} -> {b}: " + ", ".join(f"{x} -> {y}" for x, y in between))


if __name__ == "__main__":
    main()
