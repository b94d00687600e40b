"""FantasyID: Face Knowledge Enhanced ID-Preserving Video Generation (arXiv:2502.13995v1).

`model` is the method, `descriptor` and `released` its encoders of a person, `settings` its sizes, `published` the
loader of the published weights.
"""

from likeness.identity.tokens import PersonTokens as FantasyIdentity
from likeness.methods.fantasy_id.model import FantasyID

__all__ = ["FantasyID", "FantasyIdentity"]
