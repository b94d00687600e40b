"""What a terminal would obey is written out wherever a verb prints text that came from elsewhere."""

import io
import subprocess
import sys

import pytest

from likeness.cli import main
from likeness.cli.console.terminal import echo, escape_control_characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("gnp.exe\u202e", "gnp.exe\\u202e"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x08", "a\\x0db\\x08"),
        ("half \ud83d", "half \\ud83d"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("Zoë 顔 \U0001f469\u200d\U0001f52c", "Zoë 顔 \U0001f469\u200d\U0001f52c"),
    ],
)
def test_only_what_a_terminal_obeys_is_escaped(text, shown):
    assert escape_control_characters(text) == shown


def test_a_value_stays_on_its_line():
    assert escape_control_characters("Ana\nconsent: yes", lines=False) == "Ana\\x0aconsent: yes"


def test_what_a_stream_cannot_encode_is_no_error():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    echo("Zoë", stream=stream)
    stream.flush()
    assert stream.buffer.getvalue() == b"Zo\\xeb\n"


def test_errors_are_printed_without_what_a_terminal_obeys(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a woman \x1b[31mimg", "--face", "\x1b]0;x\x07.jpg"]) == 3
    assert main(["story", "\x1b[2J.toml"]) == 2
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "\\x1b[2J.toml does not exist" in printed


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["generate", "--no\x1b[2Jsuch"], 2),
        (["no\x1b[2Jsuch"], 2),
        (["generate", "--no\u202e[2Jsuch"], 2),
        (["models", "check", "\x1b[2Jno"], 4),
        (["bench", "report", "\x1b[2Jno"], 2),
        (["study", "report", "\x1b[2Jno"], 2),
    ],
)
def test_words_of_a_command_are_printed_without_control_characters(words, code, capsys):
    assert main(words) == code
    printed = capsys.readouterr()
    assert "[2J" in printed.err
    assert not {"\x1b", "\u202e"} & {*printed.err, *printed.out}


def test_warnings_of_the_library_are_printed_without_what_a_terminal_obeys():
    """In a process of its own: here, pytest handles them."""
    program = (
        "import logging; from likeness.cli import main; main(['--version'])\n"
        "logging.getLogger('likeness.x').warning('%s is skipped', '\\x1b[2J.mp4')\n"
        "logging.getLogger('likeness.x').info('not shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "\\x1b[2J.mp4 is skipped\n"


def test_the_servers_address_and_a_table_are_printed_as_text(tmp_path, monkeypatch, capsys):
    from likeness.cli import models, study

    monkeypatch.setattr("likeness.app.study.server.build_app", lambda _: None)
    monkeypatch.setattr("likeness.app.study.server.serve", lambda *_, **__: None)
    study.serve(tmp_path / "\x1b[2J", port=8001)
    models._print_table(("name", "problem"), [("[red]x[/] [/b]", "\x1b[31m")])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\\x1b[2J/answers.sqlite" in printed
    assert "[red]x[/] [/b]" in printed


def test_a_character_is_shown_without_what_a_terminal_obeys(tmp_path, monkeypatch, capsys, face_of):
    from likeness.generation import Character

    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    Character(name="ana", faces=(face_of(0),), consent="\x1b[31mAna\x1b[0m\nname: bob").save()
    assert main(["character", "show", "ana"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\nname: bob" not in shown
    assert "consent: \\x1b[31mAna" in shown
