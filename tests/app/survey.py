"""What the tests of studies share: make one, and answer it."""

import uuid

from likeness.app.study.answers import AnswerMessage
from likeness.app.study.create import StudyOptions, create_study
from likeness.app.study.manifest import Study
from likeness.app.study.pairing import pair_videos, read_systems
from likeness.app.study.questions import read_questionnaire

SYSTEMS = ("ourmethod", "baseline")
PEOPLE = ("anna", "bert", "cleo")


def make_study(material, folder, questions="magic_mirror", **options) -> Study:
    sets = pair_videos(read_systems([str(material / name) for name in SYSTEMS]), material / "references")
    return create_study(folder, sets, read_questionnaire(questions), StudyOptions(**{"seed": 3} | options))


def message(study, rater, trial, rating=5, *, key=None, seconds=4.0, position=0) -> AnswerMessage:
    """An answer; at an attention check the one asked for, unless a rating is given."""
    names = study.questionnaire.names
    ratings = dict.fromkeys(names, rating) if isinstance(rating, int) else dict(zip(names, rating, strict=True))
    return AnswerMessage(
        key=key or uuid.uuid4().hex,
        rater=rater,
        trial=trial,
        position=position,
        seconds=seconds,
        ratings=ratings,
        study=study.key,
    )


def answer_all(study, store, rater, rate, *, is_careful=True) -> None:
    """One rater goes through their whole plan; `rate` gives the rating of an item."""
    for position, trial in enumerate(study.plans[store.register_rater(rater)]):
        if trial in study.check_by_id:
            expected = study.check_by_id[trial].expected
            rating = expected if is_careful else study.questionnaire.lowest + (expected == study.questionnaire.lowest)
        else:
            rating = rate(study.item_by_id[trial])
        store.add(message(study, rater, trial, rating, position=position))
