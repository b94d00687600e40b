"""Imports point downwards. These tables are the architecture; change them on purpose."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from import_counts import PACKAGES, circles, count, parse

import likeness

PACKAGE = Path(likeness.__file__).parent
LAYERS = [
    "errors text",
    "records files",
    "config runtime media weights",
    "faces backbones puppets",
    "identity adapters",
    "methods",
    "generation",
    "training evaluation",
    "app curation",
    "cli",
    "__init__ __main__",
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer.split()}
EXCEPTIONS = {
    # `clip.save(path)` is one of the six lines that a user writes; the import takes place when it is called.
    ("records", "generation"),
}
DOORS = {
    "diffusers": "backbones adapters curation generation methods training",
    "transformers": "backbones curation identity",
    "dlib": "faces",
    "onnx": "identity",
    "onnxruntime": "faces",
    "mediapipe": "faces",
    "PIL": "media",
    "av": "media",
    "typer": "cli",
    "numba": "puppets",
    "pyarrow": "curation evaluation training",
    "huggingface_hub": "weights",
    "fastapi": "app",
    "uvicorn": "app",
    "starlette": "",
    "torchvision": "",
}
MAX_PAIRS = {"generation": 20, "training": 26, "evaluation": 14, "adapters": 8, "curation": 62}
"""Ordered pairs of sub-packages in which one imports the other (`python tests/import_counts.py`)."""
MAX_LINES = 450
MAX_FUNCTION_LINES = 60
MAX_MODULES = 12
"""In one folder, without `__init__.py`."""
FILES = sorted(PACKAGE.rglob("*.py"))


def home_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    return list(imports_in(path))


def imports_in(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of every import, at module level or inside functions."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def layer_of(dotted: str) -> str:
    """The part of the package that `likeness.x.y` belongs to; public names belong to where they live."""
    name = dotted.split(".")[1] if "." in dotted else "__init__"
    return likeness._LAZY_MODULES.get(name, name).split(".")[0]


def test_layers_are_the_parts_of_the_package():
    assert {home_of(path) for path in FILES} == set(HEIGHT)


def test_contributing_shows_the_layers():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = [set(line.split()) for line in text.splitlines() if line.startswith("    ")]
    assert shown[::-1] == [set(layer.split()) for layer in LAYERS[:-1]]


def test_exceptions_and_doors_name_parts_that_exist_and_are_used():
    used = {(home_of(path), dotted.split(".")[0]) for path in FILES for _, dotted in imports_of(path)}
    doors = {(part, library) for library, parts in DOORS.items() for part in parts.split()}
    assert doors - used == set()
    between = {
        (home_of(path), layer_of(dotted))
        for path in FILES
        for _, dotted in imports_of(path)
        if dotted.startswith("likeness.")
    }
    assert between >= EXCEPTIONS


@pytest.mark.parametrize("package", PACKAGES)
def test_sub_packages_import_each_other_in_one_direction(package):
    _, pairs = count(package)
    assert circles(pairs) == []
    assert len(pairs) <= MAX_PAIRS.get(package, len(pairs)), sorted(pairs)


def test_modules_and_functions_are_short_and_folders_hold_few():
    long = {path.name: lines for path in FILES if (lines := len(path.read_text("utf-8").splitlines())) > MAX_LINES}
    assert long == {}
    functions = {
        f"{path.name}:{node.name}": lines
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert functions == {}
    modules = [path for path in FILES if path.name != "__init__.py"]
    folders = {path.parent for path in modules}
    crowded = {folder.name: n for folder in folders if (n := sum(m.parent == folder for m in modules)) > MAX_MODULES}
    assert crowded == {}


def test_imports_point_downwards():
    assert [found for path in FILES for found in upward_imports(path)] == []


def upward_imports(path: Path) -> Iterator[str]:
    home = home_of(path)
    for line, dotted in imports_of(path):
        if dotted.split(".")[0] != "likeness" or dotted == "likeness.__version__":
            continue
        part = layer_of(dotted)
        if part != home and (home, part) not in EXCEPTIONS and HEIGHT[part] >= HEIGHT[home]:
            yield f"{path.relative_to(PACKAGE)}:{line} imports {dotted}"


def test_json_files_are_read_by_one_function():
    """`files.read_json` reports deep nesting and other encodings as a ValueError, which callers expect."""
    calls = [
        f"{path}:{node.lineno}"
        for path in FILES
        if home_of(path) != "files"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads")
        if ast.unparse(node.func) == "json.load" or re.search(r"\.read_(text|bytes)\(", ast.unparse(node))
    ]
    assert calls == []


def test_private_names_are_imported_from_no_other_module():
    assert [
        f"{path.relative_to(PACKAGE)}:{line} imports {dotted}"
        for path in FILES
        for line, dotted in imports_of(path)
        if dotted.startswith("likeness.") and any(re.match(r"_(?!_)", part) for part in dotted.split("."))
    ] == []


def test_third_party_libraries_come_in_by_one_door():
    assert [
        f"{path.relative_to(PACKAGE)}:{line} imports {dotted}; allowed in: {DOORS[library]}"
        for path in FILES
        for line, dotted in imports_of(path)
        if (library := dotted.split(".")[0]) in DOORS and home_of(path) not in DOORS[library].split()
    ] == []


def test_two_sub_packages_that_import_each_other_would_be_caught():
    pairs = {("a", "b"): [("p.a", "p.b")], ("b", "a"): [("p.b.x", "p.a")], ("a", "c"): [("p.a", "p.c")]}
    assert circles(pairs) == ["a <-> b"]


def test_a_file_that_imports_upwards_would_be_caught(tmp_path):
    module = tmp_path / "low.py"
    module.write_text("def late():\n    from likeness.training import stages\n    import likeness.cli\n")
    assert [layer_of(dotted) for _, dotted in imports_in(module)] == ["training", "cli"]
    assert HEIGHT["training"] > HEIGHT["records"]
