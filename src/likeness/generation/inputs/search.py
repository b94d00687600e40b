"""Search among seeds: number of candidates and threshold. Imports no model."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likeness.errors import ConfigError

MAX_SEED = 2**63 - 1
"""Largest seed that torch accepts."""


class SeedSearch(BaseModel):
    """Number of candidates and the similarity that ends the search."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    best_of: int = Field(default=1, ge=1, le=100)
    """Maximum number of candidates; their seeds are consecutive."""
    min_similarity: float | None = Field(default=None, ge=0, le=1)
    """A candidate with this similarity (`Similarity.score`) ends the search; None tries all."""
    rejects_early: bool = True
    """False computes every candidate in full."""

    @property
    def is_needed(self) -> bool:
        return self.best_of > 1 or self.min_similarity is not None

    @classmethod
    def of(cls, best_of: int, min_similarity: float | None) -> "SeedSearch":
        """Build a search from user input.

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
        """Refuse a first seed if the last one would exceed `MAX_SEED`.

        Raises:
            ConfigError: It would.
        """
        if not 0 <= seed <= MAX_SEED - self.best_of + 1:
            raise ConfigError(
                f"`seed` is {seed} and `best_of` {self.best_of}; seeds go from 0 to {MAX_SEED}. Use a smaller seed."
            )
