from pathlib import Path

import likeness
from likeness.text import escape_html

PACKAGE = Path(likeness.__file__).parent


def test_what_a_browser_or_a_terminal_obeys_is_written_out():
    assert escape_html('<b title="x">\x1b[2J\u202e') == "&lt;b title=&quot;x&quot;&gt;\\x1b[2J\\u202e"
    assert escape_html("Zoë\n顔") == "Zoë\n顔"


def test_every_page_escapes_by_the_same_function():
    """`html.escape` alone keeps control characters."""
    users = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "html.escape(" in path.read_text("utf-8")]
    assert users == [Path("text.py")]
