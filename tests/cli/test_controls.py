"""Bad words for people, searches and pictures end in a sentence and an exit code before any model is loaded."""

import pytest

from likeness.cli import main
from likeness.errors import ConfigError, ManyFacesError

PROMPT = "a woman img in a red sweater nods"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "No face was given"),
        (["--face", "me.jpg", "--character", "ana"], 2, "Give one of both"),
        (["--character", "ana"], 2, "No character and no file is called `ana`"),
        (["--face", "me.jpg", "--best-of", "0"], 2, "`best_of` is 0"),
        (["--face", "me.jpg", "--min-similarity", "-1"], 2, "`min_similarity` is -1"),
        (["--face", "me.jpg", "--identity-start", "0.7", "--identity-end", "0.3"], 2, "end has to be larger"),
        (["--face", "me.jpg", "--identity-scale", "-1"], 2, "`identity_scale` is -1"),
        (["--face", "me.jpg", "--identity-blocks", "5-2"], 2, "Write 2-5"),
        (["--face", "me.jpg", "--identity-branch", "all"], 2, "conditional"),
        (["--face", "me.jpg", "--style", "img"], 3, "Say only how it looks"),
        (["--face", "me.jpg", "--frames", "9", "-o", "out.png"], 2, "Use `--frames 1` for a picture"),
        (["--face", "me.jpg", "-o", "out.png"], 2, "Use `--frames 1` for a picture"),
        (["--face", "me.jpg", "--frames", "1", "-o", "out.gif"], 3, "Use .mp4"),
    ],
)
def test_bad_words_of_generate_are_refused(words, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("likeness.cli.generate.load", lambda *_, **__: pytest.fail("a model was loaded"))
    assert main(["generate", PROMPT, *words]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words", "code", "sentence"),
    [
        ('titel = "x"\n[[shots]]\nprompt = "a man img nods"', [], 2, "Did you mean `title`"),
        ('[[shots]]\nprompt = "a man nods"', [], 3, "Shot 1: "),
        ('title = "x"', [], 2, "has 0 shots"),
        ('[[shots]]\nprompt = "a man img nods"\nframes = 999', [], 2, "Shot 1: `frames` is 999"),
        ('[[shots]]\nprompt = "a man img nods"', [], 2, "No face was given"),
        (
            '[[shots]]\nprompt = "a man img nods"',
            ["--face", "a.png", "--character", "b"],
            2,
            "Give one of both",
        ),
        ('[[shots]]\nprompt = "a man img nods"', ["--set", "setps=3"], 2, "Did you mean `steps`"),
        ('[[shots]]\nprompt = "a man img nods"', ["--face", "absent.png"], 3, "absent.png"),
    ],
)
def test_bad_stories_are_refused(content, words, code, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("likeness.cli.generate.load", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "story.toml").write_text(content)
    assert main(["story", "story.toml", *words]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_prompts_of_a_story_are_checked_for_its_method(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.toml").write_text('[[shots]]\nprompt = "a man nods"')
    words = ["story", "story.toml", "--face", "absent.png"]
    assert main(words) == 3
    assert "Shot 1: " in capsys.readouterr().err
    assert main([*words, "--method", "fantasy_id"]) == 3
    assert "absent.png" in capsys.readouterr().err


def test_the_error_names_the_option_that_chooses_among_faces(tmp_path, monkeypatch, capsys):
    seen = []

    def read(faces, _character, *, pick):
        seen.append((str(faces[0]), pick))
        if pick is None:
            raise ManyFacesError(str(faces[0]), [(0, 0, 9, 9), (20, 0, 29, 9)])
        return ()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("likeness.generation.inputs.references.choose_person", read)
    for name in ("me.jpg", "group.jpg"):
        (tmp_path / name).write_bytes(b"read by the function above")
    words = ["generate", "a man img1 and a woman img2 nod", "--face", "me.jpg", "--second-face", "group.jpg"]
    assert main([*words, "--pick", "2"]) == 3
    assert "`--second-pick N`" in capsys.readouterr().err
    assert main(words) == 3
    assert "`--pick N`" in capsys.readouterr().err
    monkeypatch.setattr("likeness.cli.generate.load", _stop)
    assert main([*words, "--pick", "2", "--second-pick", "1"]) == 2
    assert seen[-2:] == [("me.jpg", 2), ("group.jpg", 1)]
    (tmp_path / "story.toml").write_text('[[shots]]\nprompt = "a man img nods"')
    assert main(["story", "story.toml", "--face", "group.jpg", "--pick", "1"]) == 2
    assert seen[-1] == ("group.jpg", 1)


def _stop(*_arguments, **_named):
    raise ConfigError("No model is loaded in this test.")
