"""IdentityCache that were read already, found again by the content of their pictures."""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from torch import Tensor

from likeness.identity.tokens import PersonTokens

MAX_PEOPLE = 32

WeightsVersion = tuple[tuple[int, ...], tuple[object, ...]]


def weights_version(tensors: Iterable[Tensor]) -> WeightsVersion | None:
    """Tell whether weights are those of before: how often each was written to, and where it lies.

    None where nobody counts, as for tensors made in inference mode.
    """
    tensors = list(tensors)
    if any(tensor.is_inference() for tensor in tensors):
        return None
    places = tuple((tensor.data_ptr(), tensor.dtype, tensor.device) for tensor in tensors)
    return tuple(tensor._version for tensor in tensors), places


class IdentityCache:
    """Tokens by the SHA-256 of crops and embeddings, as long as the weights that made them stay the same."""

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

    def rebind(self, before: WeightsVersion | None, after: WeightsVersion | None) -> None:
        """Stay valid where weights went away and came back: they lie elsewhere, and nothing was written."""
        if before is not None and after is not None and before == self._weights and before[0] == after[0]:
            self._weights = after
