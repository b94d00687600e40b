"""Store answers in SQLite: write-ahead log, append-only, each answer once.

A rater who changes an answer adds a row, and the newest row counts. Every answer carries a random key of its sender, so
that an answer sent twice is stored once. Each answer is on disk before it is acknowledged.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from likeness.app.study.manifest import ANSWERS, Study
from likeness.config import Settings, build
from likeness.errors import ConfigError, LikenessError, ResourceError
from likeness.files import read_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
    rater TEXT PRIMARY KEY, plan INTEGER NOT NULL, started REAL NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, rater TEXT NOT NULL, trial TEXT NOT NULL,
    position INTEGER NOT NULL, seconds REAL NOT NULL, ratings TEXT NOT NULL, received REAL NOT NULL);
CREATE TRIGGER IF NOT EXISTS answers_stay BEFORE UPDATE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are never changed'); END;
CREATE TRIGGER IF NOT EXISTS answers_remain BEFORE DELETE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers are never deleted'); END;
"""
_BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another process."""
_ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"


class RaterMessage(Settings):
    """Sent by a rater's page when it begins."""

    rater: str = Field(pattern=_ID_PATTERN)
    """Random identifier, chosen by the page."""
    study: str = Field(default="", max_length=64)
    """Key of the study that the page belongs to."""


class AnswerMessage(Settings):
    """A rater's answer for one video."""

    key: str = Field(pattern=_ID_PATTERN)
    """Chosen by the page: the same answer sent twice has the same key."""
    rater: str = Field(pattern=_ID_PATTERN)
    """Identifier of the rater."""
    trial: str = Field(max_length=16)
    """Neutral name of the video."""
    position: int = Field(ge=0, le=100_000)
    """Number of videos before it."""
    seconds: float = Field(ge=0, le=1e7, allow_inf_nan=False)
    """Time that the rater took."""
    ratings: dict[str, Annotated[int, Field(strict=True)]] = Field(max_length=100)
    """By name of the question."""
    study: str = Field(default="", max_length=64)
    """Key of the study that the page belongs to. Required by a server; optional in rows of a saved file."""


class StaticAnswers(Settings):
    """The file that a rater downloads from the page of a study without a server."""

    study: str
    """Key of the study."""
    rater: str = Field(pattern=_ID_PATTERN)
    """Identifier of the rater."""
    plan: int = Field(ge=0)
    """The order that they saw."""
    answers: tuple[AnswerMessage, ...] = ()
    """All answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The newest row of a rater and video."""

    rater: str
    trial: str
    position: int
    seconds: float
    ratings: Mapping[str, int]


class AnswerConflictError(ConfigError):
    """A key was already used for another answer."""


class OtherStudyError(ConfigError):
    """An answer, or a file of answers, belongs to another study."""


class UnknownRaterError(ConfigError):
    """An answer came from a rater who never began."""


class AnswerStore:
    """The answers of one study. Threads share one connection; processes share the file.

    Raises:
        OtherStudyError: The file holds answers to another study.
        ResourceError: The file of answers is damaged, or cannot be used now.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.study = study
        self.path = folder / ANSWERS
        self._lock = threading.RLock()
        with self._translate_sqlite_errors():
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translate_sqlite_errors():
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")  # Acknowledged answers survive a power cut.
                self._connection.executescript(_SCHEMA)
            self._check_study()
        except LikenessError:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def register_rater(self, rater: str, order_index: int | None = None) -> int:
        """Register a rater and assign the next order of pages (`Study.plans`); a known rater keeps theirs.

        Args:
            rater: Identifier of the rater.
            order_index: Index of the order that they already follow, if no server assigned it.
        """
        with self.transaction() as connection:
            row = connection.execute("SELECT plan FROM raters WHERE rater = ?", (rater,)).fetchone()
            if row:
                return int(row[0])
            (count,) = connection.execute("SELECT COUNT(*) FROM raters").fetchone()
            assigned = count % len(self.study.plans) if order_index is None else order_index
            connection.execute("INSERT INTO raters VALUES (?, ?, ?)", (rater, assigned, time.time()))
            return assigned

    def add(self, message: AnswerMessage) -> bool:
        """Store an answer.

        Returns:
            Whether it is new; False if it was stored before.

        Raises:
            ConfigError: It does not fit the study.
            UnknownRaterError: Its rater never began.
            AnswerConflictError: Its key was used for another answer.
        """
        check_answer(self.study, message)
        ratings = json.dumps(message.ratings, sort_keys=True)
        with self.transaction() as connection:
            if not connection.execute("SELECT 1 FROM raters WHERE rater = ?", (message.rater,)).fetchone():
                raise UnknownRaterError(f"Rater `{message.rater}` has not begun this study. Open its page again.")
            old = connection.execute(
                "SELECT rater, trial, ratings FROM answers WHERE key = ?", (message.key,)
            ).fetchone()
            if old:
                if old != (message.rater, message.trial, ratings):
                    raise AnswerConflictError(
                        f"The key `{message.key}` belongs to another answer. Make a new key for each answer."
                    )
                return False
            connection.execute(
                "INSERT INTO answers (key, rater, trial, position, seconds, ratings, received) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    message.key,
                    message.rater,
                    message.trial,
                    message.position,
                    message.seconds,
                    ratings,
                    time.time(),
                ),
            )
            return True

    def _check_study(self) -> None:
        """Write the study's key to a new file, or compare it with the stored one."""
        with self.transaction() as connection:
            row = connection.execute("SELECT key FROM study").fetchone()
            if row is None:
                connection.execute("INSERT INTO study VALUES (?)", (self.study.key,))
            elif row[0] != self.study.key:
                raise OtherStudyError(
                    f"{self.path} holds answers to the study {row[0]}, but this folder's study is {self.study.key}. "
                    "Move the answers to the study that they belong to, or away."
                )

    def count(self) -> tuple[int, int]:
        """Number of raters and of rows."""
        with self._lock, self._translate_sqlite_errors():
            (raters,) = self._connection.execute("SELECT COUNT(*) FROM raters").fetchone()
            (rows,) = self._connection.execute("SELECT COUNT(*) FROM answers").fetchone()
        return raters, rows

    def newest(self) -> list[Answer]:
        """The newest answer of each rater for each video, in order of arrival."""
        query = (
            "SELECT rater, trial, position, seconds, ratings FROM answers "
            "WHERE number IN (SELECT MAX(number) FROM answers GROUP BY rater, trial) ORDER BY number"
        )
        with self._lock, self._translate_sqlite_errors():
            rows = self._connection.execute(query).fetchall()
        return [
            Answer(rater=rater, trial=trial, position=position, seconds=seconds, ratings=json.loads(ratings))
            for rater, trial, position, seconds, ratings in rows
        ]

    @contextmanager
    def _translate_sqlite_errors(self) -> Iterator[None]:
        """Turn SQLite errors into ResourceError, which the server answers with 503, so that pages send again."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # Violated constraints, not a damaged file.
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"The answers in {self.path} cannot be used now ({error}). Close other programs that use the file, and "
                "check that it is writable."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ResourceError(
                f"The answers in {self.path} are damaged ({error}). Put a copy in their place, or repair them with "
                "`sqlite3 FILE .recover`; do not delete them."
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything inside is stored, or nothing if it raises."""
        with self._lock, self._translate_sqlite_errors():
            if self._connection.in_transaction:  # Nested: the outer transaction commits.
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise


def check_answer(study: Study, message: AnswerMessage) -> None:
    """Refuse answers that the page cannot have sent.

    Raises:
        ConfigError: Unknown video, other questions, or a number off the scale.
    """
    if message.trial not in study.item_by_id and message.trial not in study.check_by_id:
        raise ConfigError(f"`{message.trial}` is no video of this study. Open its page again.")
    questionnaire = study.questionnaire
    if set(message.ratings) != set(questionnaire.names):
        raise ConfigError(
            f"Ratings are given for {', '.join(message.ratings) or 'nothing'}; one is needed for each of "
            f"{', '.join(questionnaire.names)}."
        )
    for name, value in message.ratings.items():
        if not questionnaire.lowest <= value <= questionnaire.highest:
            raise ConfigError(f"`{name}` is {value}; the scale is {questionnaire.lowest} to {questionnaire.highest}.")


def merge(store: AnswerStore, files: Iterable[Path]) -> tuple[int, int]:
    """Store the answers of files that raters downloaded; files that were merged before add nothing.

    All files are stored, or none if one of them does not fit.

    Returns:
        New answers and answers that were there before.

    Raises:
        ConfigError: A file is not such a file.
        OtherStudyError: A file belongs to another study.
        AnswerConflictError: A key in them was used for another answer.
    """
    answer_files = [_read_static(path, store.study) for path in files]
    added = duplicates = 0
    with store.transaction():
        for answer_file in answer_files:
            store.register_rater(answer_file.rater, answer_file.plan)
            for message in answer_file.answers:
                is_new = store.add(message)
                added, duplicates = added + is_new, duplicates + (not is_new)
    return added, duplicates


def _read_static(path: Path, study: Study) -> StaticAnswers:
    try:
        values: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as answers ({error}). Ask its rater to send it again.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no answers. Name a file that the survey's page saved.")
    answer_file = build(StaticAnswers, values, where=path.name)
    for study_key in (answer_file.study, *(message.study or answer_file.study for message in answer_file.answers)):
        if study_key != study.key:
            raise OtherStudyError(
                f"{path} answers study {study_key}, this is {study.key}. Merge it into the other one."
            )
    for message in answer_file.answers:
        if message.rater != answer_file.rater:
            raise ConfigError(f"{path} holds answers of several raters. Ask for the file as it was saved.")
        check_answer(study, message)
    return answer_file
