"""Questionnaires: questions and scale in a TOML file. Those of both papers are built in."""

import difflib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from likeness.config import Settings, read
from likeness.errors import ConfigError

FOLDER = Path(__file__).parent / "questionnaires"


class Question(Settings):
    """One aspect that is rated."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Key in answers and reports."""
    title: str = Field(min_length=1)
    """Heading shown to raters."""
    text: str = Field(min_length=1)
    """The question."""
    low_label: str = ""
    """Label of the lowest number."""
    high_label: str = ""
    """Label of the highest number."""
    needs: tuple[Literal["prompt", "references"], ...] = ()
    """What must be shown beside the video."""


class Questionnaire(Settings):
    """The questions about every video, all on one scale."""

    title: str = Field(min_length=1)
    """Heading of the survey."""
    source: str = ""
    """Source of aspects and scale; shown in the report, not to raters."""
    lowest: int = Field(default=1, ge=0)
    """Low end of the scale."""
    highest: int = Field(default=10, le=100)
    """High end of the scale; one button for each whole number."""
    questions: tuple[Question, ...] = Field(min_length=1)
    """In the order of display."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= self.highest - self.lowest <= 10:
            raise ValueError(
                f"the scale runs from {self.lowest} to {self.highest}; two to eleven numbers fit on a phone"
            )
        names = [question.name for question in self.questions]
        if len(set(names)) < len(names):
            raise ValueError(f"names of questions repeat: {', '.join(names)}; each needs its own")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(question.name for question in self.questions)

    def shows(self, part: Literal["prompt", "references"]) -> bool:
        """Whether any question needs `part` beside the video."""
        return any(part in question.needs for question in self.questions)


def read_questionnaire(name: str | Path) -> Questionnaire:
    """Read a built-in questionnaire by name, or a TOML file by path.

    Raises:
        ConfigError: There is neither, or the file is not a questionnaire.
    """
    shipped = sorted(path.stem for path in FOLDER.glob("*.toml"))
    if str(name) in shipped:
        return read(Questionnaire, FOLDER / f"{name}.toml")
    if Path(name).suffix == ".toml":
        return read(Questionnaire, name)
    close = difflib.get_close_matches(str(name), shipped, n=1)
    advice = f"Did you mean `{close[0]}`?" if close else f"Built in: {', '.join(shipped)}."
    raise ConfigError(f"`{name}` is not a questionnaire. {advice} Or give a TOML file.")
