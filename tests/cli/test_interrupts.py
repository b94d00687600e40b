"""Ctrl-C at moments in which no command can report it ends the process without a traceback."""

import signal
import subprocess
import sys

import pytest

HOOK = """
import atexit, importlib.abc, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "likeness.cli.generate":
            interrupt()

sys.argv = ["likeness", "--version"]
"""


@pytest.mark.parametrize(
    "moment", ["sys.meta_path.insert(0, Hook())", "atexit.register(interrupt)"], ids=["imports", "exit"]
)
def test_ctrl_c_outside_of_a_command_prints_no_traceback(moment):
    program = f"{HOOK}\n{moment}\nfrom likeness.__main__ import run\nrun()\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_background_job_goes_on_ignoring_ctrl_c():
    program = f"{HOOK}\nsys.meta_path.insert(0, Hook())\nfrom likeness.__main__ import run\nrun()\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
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
