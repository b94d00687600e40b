"""A cache of identity tokens, keyed by the content of the reference pictures."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from torch import Tensor

from likeness.identity.tokens import PersonTokens

MAX_PEOPLE = 32

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
        self._weights: WeightsVersion | None = None
        self._known: OrderedDict[str, PersonTokens] = OrderedDict()

    @staticmethod
    def key(*arrays: np.ndarray) -> str:
        digest = sha256()
        for array in arrays:
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def get(self, key: str, weights: WeightsVersion | None) -> PersonTokens | None:
        if weights is None or weights != self._weights:
            self._known.clear()
            self._weights = weights
            return None
        return self._known.get(key)

    def put(self, key: str, identity: PersonTokens) -> None:
        if self._weights is not None:
            self._known[key] = identity
            if len(self._known) > MAX_PEOPLE:
                self._known.popitem(last=False)

    def move_version(self, before: WeightsVersion | None, after: WeightsVersion | None) -> None:
        """Keep the entries after weights were offloaded and restored: new addresses, equal version counters."""
        if before is not None and after is not None and before == self._weights and before[0] == after[0]:
            self._weights = after
