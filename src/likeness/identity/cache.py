"""A cache of identity tokens, keyed by the content of the reference pictures."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from torch import Tensor

from likeness.identity.tokens import PersonTokens

MAX_ENTRIES = 32

WeightsVersion = tuple[tuple[int, ...], tuple[object, ...]]


def weights_version(tensors: Iterable[Tensor]) -> WeightsVersion | None:
    """Version counters and storage addresses of tensors, to detect that weights have changed.

    None if torch keeps no version counter, as for tensors created in inference mode.
    """
    tensors = list(tensors)
    if any(tensor.is_inference() for tensor in tensors):
        return None
    storages = tuple((tensor.data_ptr(), tensor.dtype, tensor.device) for tensor in tensors)
    return tuple(tensor._version for tensor in tensors), storages


class IdentityCache:
    """Tokens by the SHA-256 of crops and embeddings, valid as long as the encoder weights stay the same."""

    def __init__(self) -> None:
        self._version: WeightsVersion | None = None
        self._entries: OrderedDict[str, PersonTokens] = OrderedDict()

    @staticmethod
    def key(*arrays: np.ndarray) -> str:
        digest = sha256()
        for array in arrays:
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def get(self, key: str, version: WeightsVersion | None) -> PersonTokens | None:
        if version is None or version != self._version:
            self._entries.clear()
            self._version = version
            return None
        return self._entries.get(key)

    def put(self, key: str, identity: PersonTokens) -> None:
        if self._version is not None:
            self._entries[key] = identity
            if len(self._entries) > MAX_ENTRIES:
                self._entries.popitem(last=False)

    def move_version(self, before: WeightsVersion | None, after: WeightsVersion | None) -> None:
        """Keep the entries after weights were offloaded and restored: new addresses, equal version counters."""
        if before is not None and after is not None and before == self._version and before[0] == after[0]:
            self._version = after
