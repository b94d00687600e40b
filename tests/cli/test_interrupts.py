"""Ctrl-C and SIGTERM end a command with one line and 128 and their number, at moments at which Python prints more."""

import signal
import subprocess
import sys

import pytest

HOOK = """
import atexit, importlib.abc, os, signal, sys, time

class Hook(importlib.abc.MetaPathFinder):
    def __init__(self, name, seconds=0, fails=False):
        self.name, self.seconds, self.fails = name, seconds, fails

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            interrupt()
            time.sleep(self.seconds)
            if self.fails:  # As the linker does when a signal arrives while it opens a file.
                raise ImportError("cannot open shared object file")

class Dying:
    def __del__(self):
        interrupt()

class HalfMade:
    def __init__(self):
        interrupt()
        self.handle = 1

    def __del__(self):
        del self.handle

def interrupt():
    os.kill(os.getpid(), NUMBER)

def interrupt_and_fail(*_):
    try:
        interrupt()
    except KeyboardInterrupt as error:
        raise AttributeError("half a module") from error

def replace(act):
    import likeness.faces
    def read_face(*_, **__):
        act()
        time.sleep(9)
    likeness.faces.read_face = read_face
"""
OUTSIDE = {
    "imports": "sys.meta_path.insert(0, Hook('likeness.cli.generate'))",
    "exit": "atexit.register(interrupt)",
}
INSIDE = {
    "import": "sys.meta_path.insert(0, Hook('colorsys')); replace(lambda: __import__('colorsys'))",
    "long import": "sys.meta_path.insert(0, Hook('colorsys', seconds=9)); replace(lambda: __import__('colorsys'))",
    "failed import": "sys.meta_path.insert(0, Hook('colorsys', fails=True)); replace(lambda: __import__('colorsys'))",
    "destructor": "replace(Dying)",
    "constructor": "replace(HalfMade)",
    "other error": "replace(interrupt_and_fail)",
}
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def run(number, words, moment, folder, handler=signal.default_int_handler):
    program = HOOK.replace("NUMBER", str(int(number)))
    program += f"\nsys.argv = {['likeness', *words]}\n{moment}\nfrom likeness.__main__ import run\nrun()\n"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", OUTSIDE.values(), ids=OUTSIDE)
def test_a_signal_outside_of_a_command_prints_one_line(tmp_path, number, moment):
    done = run(number, ["--version"], moment, tmp_path)
    assert (done.returncode, done.stderr) == (128 + number, "likeness: interrupted.\n")


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", INSIDE.values(), ids=INSIDE)
def test_a_signal_while_a_command_imports_prints_one_line(tmp_path, number, moment):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    done = run(number, ["compare", "a.jpg", "a.jpg"], moment, tmp_path)
    assert (done.returncode, done.stderr) == (128 + number, "likeness: interrupted.\n")


def test_a_background_job_goes_on_ignoring_ctrl_c(tmp_path):
    done = run(signal.SIGINT, ["--version"], OUTSIDE["imports"], tmp_path, signal.SIG_IGN)
    assert done.returncode == 0
    assert done.stdout.startswith("likeness ")


@pytest.mark.parametrize(("cause", "code"), [("KeyboardInterrupt()", 130), ("OSError()", 1)])
def test_ctrl_c_in_the_import_of_a_module_in_c_prints_no_traceback(tmp_path, cause, code):
    program = f"""
import importlib.abc, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "dlib":
            raise ImportError("initialization failed") from {cause}

sys.meta_path.insert(0, Hook())
from likeness.cli import main
sys.exit(main(["compare", "a.jpg", "a.jpg"]))
"""
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == (code == 1)
