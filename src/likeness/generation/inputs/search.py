"""How many seeds are tried, and when one is good enough: checked before any model is imported."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likeness.errors import ConfigError

MAX_SEED = 2**63 - 1
"""Larger ones are no seed to torch."""


class Search(BaseModel):
    """How many seeds are tried, and when one is good enough."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    best_of: int = Field(default=1, ge=1, le=100)
    """Most candidates; their seeds count up from the first."""
    min_similarity: float | None = Field(default=None, ge=0, le=1)
    """A candidate with this similarity (`Similarity.score`) ends the search; None tries all."""
    rejects_early: bool = True
    """False finishes every candidate that is begun."""

    @property
    def is_needed(self) -> bool:
        return self.best_of > 1 or self.min_similarity is not None

    @classmethod
    def of(cls, best_of: int, min_similarity: float | None) -> "Search":
        """Check what a user asked for.

        Raises:
            ConfigError: It is out of range.
        """
        try:
            return cls(best_of=best_of, min_similarity=min_similarity)
        except ValidationError as error:
            problems = "; ".join(f"`{e['loc'][0]}` is {e['input']}: {e['msg']}" for e in error.errors())
            raise ConfigError(
                f"{problems}. `best_of` counts candidates, similarity goes from 0 to 1 (0.5 is where two photographs "
                "count as one person)."
            ) from error

    def check_seed(self, seed: int) -> None:
        """Refuse a first seed from which the others would leave torch's range.

        Raises:
            ConfigError: They would.
        """
        if not 0 <= seed <= MAX_SEED - self.best_of + 1:
            raise ConfigError(
                f"`seed` is {seed} and `best_of` {self.best_of}; seeds go from 0 to {MAX_SEED}. Use a smaller seed."
            )
