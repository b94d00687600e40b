import shutil
import sqlite3
import threading
import time

import pytest
from served import InProcess, Server
from survey import PEOPLE, SYSTEMS, message

from likeness.app.study import answers
from likeness.app.study.answers import AnswerStore
from likeness.app.study.manifest import Study

pytest.importorskip("fastapi", reason="the web framework is not installed: pip install 'likeness[app]'")
ANSWERS = 3


@pytest.fixture(scope="module")
def folder(shared_study, tmp_path_factory):
    return shutil.copytree(shared_study, tmp_path_factory.mktemp("served") / "study")


@pytest.fixture(scope="module")
def server(folder):
    running = Server(folder)
    yield running
    running.kill()


@pytest.mark.parametrize("raters", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_many_raters_at_once_and_kill_9_lose_nothing_and_double_nothing(server, folder, raters):
    study = Study.load(folder)
    store = AnswerStore(folder, study)
    before = store.count()
    store.close()
    sent, faults = {}, []

    def rate(number):
        try:
            rater = f"rater-{raters}-{number:04}"
            plan = study.plans[server.insist("/api/raters", {"rater": rater, "study": study.key})["plan"]]
            for position, trial in enumerate(plan[:ANSWERS]):
                one = message(study, rater, trial, 1 + (number + position) % 10, position=position)
                server.insist("/api/answers", one.model_dump())
                sent[one.key] = one
                if number % 4 == 0:  # A reply got lost on the way, so the page sends again.
                    assert server.insist("/api/answers", one.model_dump()) == {"is_new": False}
        except BaseException as error:
            faults.append(error)
            raise

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(raters)]
    for thread in threads:
        thread.start()
    for share in (0.2, 0.6):
        while len(sent) < share * raters * ANSWERS and not faults:
            time.sleep(0.01)
        server.kill()
        server.start()
    for thread in threads:
        thread.join()
    assert not faults
    store = AnswerStore(folder, study)
    assert store.count() == (before[0] + raters, before[1] + raters * ANSWERS)
    kept = {(a.rater, a.trial): a.ratings for a in store.newest() if a.rater.startswith(f"rater-{raters}-")}
    store.close()
    assert kept == {(one.rater, one.trial): one.ratings for one in sent.values()}


def test_only_the_public_folder_is_served(server):
    for path in (
        "/study.json",
        "/answers.sqlite",
        "/../study.json",
        "/%2e%2e/study.json",
        "/media/..%2f..%2fstudy.json",
    ):
        assert server.ask("GET", path)[0] in (404, 400)
    status, page, headers = server.ask("GET", "/")
    assert status == 200
    assert b"survey.js" in page
    assert headers["x-content-type-options"] == "nosniff"
    assert server.ask("GET", "/collect.js")[1] == b"window.COLLECT = true;\n"
    assert server.ask("GET", "/media/v1.mp4", headers={"Range": "bytes=0-9"})[0] == 206
    for path in ("/", "/data.js", "/survey.js"):
        text = server.ask("GET", path)[1]
        assert not [word for word in (*SYSTEMS, *PEOPLE) if word.encode() in text]


def test_what_no_page_sends_is_refused_with_a_reason(server, folder):
    study = Study.load(folder)
    item = study.items[0].id
    server.insist("/api/raters", {"rater": "rater-9999", "study": study.key})
    good = message(study, "rater-9999", item, key="key-of-9999").model_dump()
    server.insist("/api/answers", good)
    for status, body in (
        (409, good | {"ratings": dict.fromkeys(study.questionnaire.names, 1)}),
        (404, good | {"rater": "rater-8888"}),
        (422, good | {"trial": "v99"}),
        (422, good | {"key": "x"}),
        (422, good | {"more": 1}),
        (422, good | {"seconds": float("nan")}),
        (422, good | {"ratings": dict.fromkeys(study.questionnaire.names, True)}),
        (422, b"not json"),
        (413, b" " * 70_000),
    ):
        assert server.ask("POST", "/api/answers", body)[0] == status, body


def test_an_answer_that_cannot_be_stored_now_is_to_be_sent_again(shared_study, tmp_path, monkeypatch):
    """The page gives up on a status of 4xx alone."""
    monkeypatch.setattr(answers, "_BUSY_TIMEOUT_S", 0.05)
    folder = shutil.copytree(shared_study, tmp_path / "study")
    study = Study.load(folder)
    body = message(study, "rater-0001", study.items[0].id).model_dump()
    with InProcess(folder) as server:
        server.insist("/api/raters", {"rater": "rater-0001", "study": study.key})
        other = sqlite3.connect(folder / "answers.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        status, reply, _ = server.ask("POST", "/api/answers", body)
        other.execute("ROLLBACK")
        other.close()
        assert (status, b"cannot be used now" in reply) == (503, True)
        assert server.insist("/api/answers", body) == {"is_new": True}
