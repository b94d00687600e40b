import json
import sqlite3

import pytest
from survey import message

from likeness.app.study.answers import AnswerConflictError, AnswerStore, UnknownRaterError, merge
from likeness.errors import ConfigError

RATER = "rater-0001"


@pytest.fixture
def trial(study):
    return study.items[0].id


def test_an_answer_sent_twice_is_stored_once(study, store, trial):
    store.register_rater(RATER)
    one = message(study, RATER, trial, 7)
    assert store.add(one) is True
    assert store.add(one) is False
    assert store.count() == (1, 1)


def test_a_key_of_another_answer_is_a_conflict(study, store, trial):
    store.register_rater(RATER)
    store.add(message(study, RATER, trial, 7, key="same-key-1"))
    with pytest.raises(AnswerConflictError):
        store.add(message(study, RATER, trial, 8, key="same-key-1"))
    assert store.newest()[0].ratings["visual_quality"] == 7


def test_second_thoughts_add_a_row_and_count(study, store, trial):
    store.register_rater(RATER)
    for rating in (3, 9):
        store.add(message(study, RATER, trial, rating))
    assert store.count() == (1, 2)
    assert [set(answer.ratings.values()) for answer in store.newest()] == [{9}]


def test_rows_can_be_neither_changed_nor_deleted(study, store, trial):
    store.register_rater(RATER)
    store.add(message(study, RATER, trial))
    with sqlite3.connect(store.path) as connection:
        for words in ("UPDATE answers SET ratings = '{}'", "DELETE FROM answers"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                connection.execute(words)
    connection.close()


def test_strangers_and_impossible_answers_are_refused(study, store, trial):
    with pytest.raises(UnknownRaterError):
        store.add(message(study, RATER, trial))
    store.register_rater(RATER)
    with pytest.raises(ConfigError, match="the scale is 1 to 10"):
        store.add(message(study, RATER, trial, 11))
    with pytest.raises(ConfigError, match="no video of this study"):
        store.add(message(study, RATER, "v99"))
    one = message(study, RATER, trial)
    with pytest.raises(ConfigError, match="one is needed for each"):
        store.add(one.model_copy(update={"ratings": {"visual_quality": 3}}))
    assert store.count() == (1, 0)


def test_plans_are_dealt_in_turn_and_kept(store):
    plans = [store.register_rater(f"rater-{number:04}") for number in range(4)]
    assert plans == [0, 1, 2, 3]
    assert store.register_rater("rater-0002") == 2


def test_what_was_stored_is_there_after_reopening(study, store, trial):
    store.register_rater(RATER)
    store.add(message(study, RATER, trial, 4))
    again = AnswerStore(store.path.parent, study)
    assert again.newest() == store.newest()
    again.close()


def saved_file(study, path, rater=RATER, changes=None):
    answers = [message(study, rater, item.id, 6).model_dump() for item in study.items[:3]]
    content = {"study": study.key, "rater": rater, "plan": 5, "answers": answers}
    path.write_text(json.dumps(content | (changes or {})))
    return path


def test_merging_a_file_twice_adds_nothing(study, store, tmp_path):
    files = [saved_file(study, tmp_path / "a.json"), saved_file(study, tmp_path / "b.json", "rater-0002")]
    assert merge(store, files) == (6, 0)
    assert merge(store, [*files, files[0]]) == (0, 9)
    assert store.register_rater(RATER) == 5
    assert store.count() == (2, 6)


def test_a_conflict_in_the_last_file_stores_nothing_of_the_first(study, store, tmp_path):
    first, second = (
        saved_file(study, tmp_path / "a.json"),
        saved_file(study, tmp_path / "b.json", "rater-0002"),
    )
    saved = json.loads(second.read_text())
    saved["answers"][0]["key"] = json.loads(first.read_text())["answers"][0]["key"]
    second.write_text(json.dumps(saved))
    with pytest.raises(AnswerConflictError):
        merge(store, [first, second])
    assert store.count() == (0, 0)
    assert merge(store, [first]) == (3, 0)


def test_files_of_another_study_or_of_nothing_add_nothing(study, store, tmp_path):
    good = saved_file(study, tmp_path / "good.json")
    for changes in ({"study": "ffff"}, {"rater": "someone-else"}, {"plan": "x"}):
        with pytest.raises(ConfigError):
            merge(store, [good, saved_file(study, tmp_path / "bad.json", changes=changes)])
    for text in (good.read_text()[:-20], "[" * 100_000):
        (tmp_path / "cut.json").write_text(text)
        with pytest.raises(ConfigError, match="cannot be read as answers"):
            merge(store, [good, tmp_path / "cut.json"])
    assert store.count() == (0, 0)
