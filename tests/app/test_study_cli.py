import json

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


def test_bad_words_are_told_with_what_to_do(material, tmp_path, capsys):
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
