"""Magic Mirror: ID-Preserved Video Generation in Video Diffusion Transformers (arXiv:2501.03931v1).

`model` is the method, `identity` the tokens of a person, `settings` the sizes of the paper.
"""

from likeness.methods.magic_mirror.identity import MagicMirrorIdentity
from likeness.methods.magic_mirror.model import MagicMirror

__all__ = ["MagicMirror", "MagicMirrorIdentity"]
