"""Loads CogVideoX's T5 tokenizer, on the hub a SentencePiece model (`tokenizer/spiece.model`)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from likeness.errors import WeightsError

_READERS = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in `folder`; called before anything large is loaded.

    Args:
        folder: Contains `spiece.model` or `tokenizer.json`, and `tokenizer_config.json`.

    Raises:
        WeightsError: A required package is not installed, or files are missing or damaged.
    """
    if not any((folder / name).is_file() for name in ("spiece.model", "tokenizer.json")):
        raise WeightsError(
            f"The tokenizer at {folder} has neither spiece.model nor tokenizer.json. Copy or pull the folder again."
        )
    # From an empty file transformers builds a tokenizer without vocabulary and raises no error.
    if empty := [path.name for path in sorted(folder.iterdir()) if path.is_file() and not path.stat().st_size]:
        raise WeightsError(
            f"The tokenizer at {folder} is empty: {', '.join(empty)} of 0 bytes. Copy or pull its files again."
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # `tokenizers` raises plain `Exception`, protobuf its own class.
        if not (folder / "tokenizer.json").is_file() and (absent := _absent_readers()):
            raise WeightsError(
                f"The tokenizer at {folder} needs the package {' and '.join(absent)}, which this Python does not have. "
                f"Run `pip install {' '.join(absent)}`; the files need not be pulled again."
            ) from error
        raise WeightsError(
            f"The tokenizer at {folder} cannot be read: {error} Copy or pull its files again; the other parts of the "
            "pipeline need not be."
        ) from error


def _absent_readers() -> list[str]:
    return [package for module, package in _READERS.items() if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # The parent package is absent.
        return False
