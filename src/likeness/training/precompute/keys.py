"""Keys of encoded items: a hash of the media's bytes, of the encoder's weights and of the settings that were used.

Nothing stale can be read: another file, encoder or setting has another key.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from likeness.training.files import tar
from likeness.weights.hashes import cached_sha256

VERSION = 1
"""Raised when the encoding itself changes."""


def media_hash(path: Path) -> str:
    """SHA-256 of a media file, or of a member of a tar shard."""
    if tar.split_member(path) is not None:
        return hashlib.sha256(tar.read_bytes(path)).hexdigest()
    return cached_sha256(path)


def weights_hash(module: nn.Module, *extra: Any) -> str:
    """A hash of a module's weights in half precision, and of further values."""
    digest = hashlib.sha256(repr(extra).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.half().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def item_key(*parts: Any) -> str:
    """One key of JSON-able parts."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True).encode()).hexdigest()
