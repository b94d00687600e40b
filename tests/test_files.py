import errno
import os
import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from likeness import files
from likeness.errors import FileWriteError, LikenessError, LockedError


@contextmanager
def python(script):
    """A process that says something when it is where a test wants it."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path):
    target = tmp_path / "new" / "record.json"
    files.write_text(target, "ä")
    files.write_text(target, "ö")
    assert target.read_text(encoding="utf-8") == "ö"
    assert [path.name for path in target.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_what_was_there_stays_where_writing_fails(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)), files.write_atomically(target) as draft:  # noqa: PT012
        draft.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_errors_of_the_disk_say_what_to_do(tmp_path, number):
    named = r"a\.txt cannot be written: .*\. (Free|Choose)"
    for error in (OSError(number, os.strerror(number)), SafetensorError(f"I/O error (os error {number})")):
        with pytest.raises(FileWriteError, match=named), files.write_atomically(tmp_path / "a.txt"):
            raise error


def test_a_file_where_a_folder_is_needed_and_the_reverse_are_reported(tmp_path):
    (tmp_path / "afile").write_text("")
    (tmp_path / "afolder").mkdir()
    with pytest.raises(FileWriteError, match="file"):
        files.write_text(tmp_path / "afile" / "x.json", "")
    with pytest.raises(FileWriteError, match="folder where a file"):
        files.write_text(tmp_path / "afolder", "")
    with pytest.raises(LikenessError, match="shorter"):
        files.write_text(tmp_path / ("x" * 400), "")


def test_a_link_is_replaced_and_what_it_names_is_not_touched(tmp_path):
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("mine")
    link.symlink_to(other)
    files.write_text(link, "new")
    assert (other.read_text(), link.read_text(), link.is_symlink()) == ("mine", "new", False)


def test_a_folder_appears_whole_with_modes_that_others_can_read(tmp_path):
    with files.write_atomically(tmp_path / "model") as draft:
        draft.mkdir()
        save_file({"a": np.zeros(3)}, draft / "a.safetensors")  # This library makes files of mode 600.
        assert not (tmp_path / "model").exists()
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "model" / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with files.write_atomically(tmp_path / "model", replaces_folder=True) as draft:
        draft.mkdir()
    assert list((tmp_path / "model").iterdir()) == []
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_folder_stays_where_moving_its_replacement_fails(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    monkeypatch.setattr(files.Path, "replace", fail)
    expected = FileWriteError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), files.write_atomically(target, replaces_folder=True) as draft:
        draft.mkdir()
    assert (target / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    script = f"""
        from likeness import files
        with files.write_atomically({str(tmp_path / "b")!r}) as draft:
            draft.write_text("whole")
            print("here", flush=True)
            input()
    """
    with python(script) as living:
        with python(script) as dead:
            assert len(list(tmp_path.iterdir())) == 2
            dead.kill()
        files.write_text(tmp_path / "a", "")
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
        living.communicate("go on\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "b").read_text() == "whole"


@pytest.mark.skipif(files.fcntl is None, reason="this system has no locks")
def test_a_folder_that_a_killed_process_removes_is_whole_or_gone(tmp_path, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "step_1"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            files.remove(folder)
    assert not folder.exists()
    assert len(files.remove_stale_temporaries(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_many_writers_of_one_file_do_not_meet(tmp_path):
    def write(number):
        for _ in range(20):
            files.write_text(tmp_path / "shared", f"{number}" * 20_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    text = (tmp_path / "shared").read_text()
    assert len(text) == 20_000
    assert len(set(text)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_a_lock_is_had_by_one_process_and_freed_by_its_death(tmp_path):
    path = tmp_path / "run" / ".lock"
    script = f"""
        from likeness import files
        with files.lock({str(path)!r}):
            print("here", flush=True)
            input()
    """
    with python(script) as owner:
        # The message names folders, whose names may contain braces.
        message = f"{{x}} {{0}} by process {owner.pid}, wait"
        with pytest.raises(LockedError, match=re.escape(message)), files.lock(path, busy="{x} {0} by {owner}, wait"):
            pass
    with files.lock(path):
        assert path.read_text() == str(os.getpid())
    with files.lock(path, wait_s=0.2):
        pass


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"name": "\xe9"}', b"{", b""])
def test_a_file_that_is_no_json_is_a_value_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011
        files.read_json(path)
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(path) == {"a": 1}


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path):
    (tmp_path / "afile").write_text("")
    with pytest.raises(FileWriteError, match="afile"):
        files.check_writable(tmp_path / "afile")
    files.check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
