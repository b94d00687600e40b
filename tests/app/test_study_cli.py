import json
import shutil

from survey import SYSTEMS, answer_all

from likeness.app.study.answers import AnswerStore
from likeness.app.study.manifest import Study
from likeness.cli import main


def test_create_answer_report(material, tmp_path, capsys):
    folder = tmp_path / "study"
    systems = [str(material / name) for name in SYSTEMS]
    words = ["study", "create", *systems, "--references", str(material / "references"), "-o", str(folder)]
    assert main([*words, "--questions", "fantasy_id", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 6
    assert main(words) == 2
    assert "already holds a study" in capsys.readouterr().err

    assert main(["study", "report", str(folder)]) == 2
    assert "none counts" in capsys.readouterr().err
    study = Study.load(folder)
    store = AnswerStore(folder, study)
    for number in range(2):
        answer_all(study, store, f"careful-{number}", lambda item: 9 if item.system == "ourmethod" else 0)
    store.close()
    assert main(["study", "report", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ratings"]["face_similarity"]["ourmethod"]["mean"]["value"] == 9.0
    assert printed == json.loads((folder / "report.json").read_text())
    assert main(["study", "report", str(folder)]) == 0
    assert "2 of 2 raters count" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 1000


def test_bad_words_are_reported_with_what_to_do(material, tmp_path, capsys):
    system = str(material / SYSTEMS[0])
    words = [
        "study",
        "create",
        system,
        "--references",
        str(material / "references"),
        "-o",
        str(tmp_path / "s"),
    ]
    assert main([*words, "--questions", "magicmirror"]) == 2
    assert "Did you mean `magic_mirror`" in capsys.readouterr().err
    assert main(["study", "serve", str(tmp_path)]) == 2
    assert "holds no study" in capsys.readouterr().err
    (tmp_path / "answers.json").write_text("[]")
    assert main(["study", "merge", str(tmp_path), str(tmp_path / "answers.json")]) == 2


def test_what_lies_in_the_folder_of_a_new_study_is_never_removed(material, tmp_path, capsys):
    page = tmp_path / "study" / "site" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    words = ["study", "create", *(str(material / name) for name in SYSTEMS)]
    words += ["--references", str(material / "references"), "-o"]
    assert main([*words, str(tmp_path / "study")]) == 2
    assert "exists and would be overwritten" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert main([*words, str(page / "study")]) == 4
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_a_page_never_replaces_the_study(shared_study, capsys):
    before = {path: path.read_bytes() for path in shared_study.rglob("*") if path.is_file()}
    for page, words in (
        ("study.html", "would overwrite"),
        ("site/index.html", "would overwrite"),
        ("answers.sqlite", "ends in .html"),
        ("numbers.json", "ends in .html"),
    ):
        assert main(["study", "report", str(shared_study), "-o", str(shared_study / page)]) == 2
        assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in shared_study.rglob("*") if path.is_file()} == before


def test_a_damaged_study_is_reported(shared_study, tmp_path, capsys):
    broken = shutil.copytree(shared_study, tmp_path / "study")
    shutil.rmtree(broken / "site")
    assert main(["study", "serve", str(broken)]) == 2
    printed = capsys.readouterr()
    assert "is gone or empty" in printed.err
    assert "http" not in printed.out
    (broken / "answers.sqlite").write_bytes(b"no database" * 100)
    assert main(["study", "report", str(broken)]) == 4
    assert "are damaged" in capsys.readouterr().err


def test_answers_that_are_damaged_behind_their_head_are_reported(shared_study, tmp_path, capsys):
    broken = shutil.copytree(shared_study, tmp_path / "study")
    study = Study.load(broken)
    store = AnswerStore(broken, study)
    for number in range(20):
        answer_all(study, store, f"careful-{number}", lambda _: 5)
    store.close()
    data = bytearray((broken / "answers.sqlite").read_bytes())
    data[12_288:] = b"\xa5" * (len(data) - 12_288)
    (broken / "answers.sqlite").write_bytes(data)
    assert main(["study", "report", str(broken)]) == 4
    assert "are damaged" in capsys.readouterr().err


def test_two_videos_of_one_name_are_refused(material, tmp_path, capsys):
    systems = [shutil.copytree(material / name, tmp_path / name) for name in SYSTEMS]
    shutil.copy(systems[0] / "anna_1.mp4", systems[0] / "anna_1.mov")
    words = ["study", "create", *map(str, systems), "--references", str(material / "references")]
    assert main([*words, "-o", str(tmp_path / "study")]) == 2
    assert "have one name" in capsys.readouterr().err
