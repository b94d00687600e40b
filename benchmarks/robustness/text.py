"""Gives text that a terminal or a browser would obey to every command that shows text.

Prompts, names, titles and paths hold control characters, marks that change the direction of text, markup of HTML, of
rich and of format strings. What is printed must hold no control character; JSON must be one object that gives the text
back; pages must hold no element and no attribute that the text brought along.
"""

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from html.parser import HTMLParser
from pathlib import Path

from trials import REFUSED, Command, Tally, benchmark_of, damaged
from verbs import PROMPT, STORY, make_material

TEXTS = {
    "terminal": "\x1b[2J\x1b]0;owned\x07\x1b[31m \x9b31m\x85\x90 a\u202eb\u2066\u200f\nlikeness: fine\rb\x08\x7f",
    "element": "<zzz onzzz=1>\"'><script>zzz()</script><svg onload=zzz()>",
    "comment": "--><zzz></title></style></script><zzz onzzz=1>]]> &lt;zzz&gt;&#60;zzz&#62;",
    "short": "<zzz>",
    "format": "{owner} {0} {} {{ %s %(x)s %n ${zzz} `${zzz}` {{zzz}} <%= zzz %> [bold red]x[/] [/red] [",
    "surrogate": "\udcff\udc80",
}
"""The last arises from words and file names that are not UTF-8; a short one fits into every sentence."""
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and new line, and marks of direction."""
NOT_JUDGED = ("damaged home", "damaged protocol.toml", "damaged questions.toml")
"""The last two are inputs, and no TOML with a text that is not UTF-8."""
LONGEST_S = 60.0


class Page(HTMLParser):
    """Collects what the text brought into a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "zzz" in tag:
            self.found.append(f"element <{tag}>")
        for name, value in attrs:
            is_script = name.startswith("on") or (value or "").strip().lower().startswith("javascript:")
            if "zzz" in name or (is_script and "zzz" in (value or "")):
                self.found.append(f"attribute {name} of <{tag}>")
        self.in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self.in_script = False

    in_script = False

    def handle_data(self, data: str) -> None:
        if self.in_script and "zzz()" in data and '"' not in data:
            self.found.append("script")


def faults_of_pages(folder: Path) -> list[str]:
    faults = []
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = Page()
        page.feed(text)
        faults += [f"{path.relative_to(folder)}: {found}" for found in page.found]
        if control := re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
            faults.append(f"{path.relative_to(folder)} holds {control[0]!r}")
    return faults


def faults_of_json(printed: str, text: str, *, must_hold: bool) -> list[str]:
    lines = [line for line in printed.splitlines() if line.startswith(("{", "["))]
    if not lines:
        return []
    try:
        value = json.loads(lines[-1])
    except ValueError as error:
        return [f"JSON cannot be read: {error}"]
    held = json.dumps(value, ensure_ascii=False)
    return [] if not must_hold or json.dumps(text, ensure_ascii=False)[1:-1] in held else ["JSON alters the text"]


def in_name(text: str) -> str:
    """As a part of a file's name."""
    return text.replace("/", "_").replace("\0", "")[:60]


class Hostile:
    """The commands with one text in all places that take one."""

    def __init__(self, material: Path, folder: Path, text: str) -> None:
        self.material, self.folder, self.text, self.name = material, folder, text, in_name(text)
        self.quick = ["--steps", "1", "--frames", "1", "--backbone", str(material / "checkpoint")]
        self.me = str(material / "me.png")
        self.seen: set[str] = set()
        self.tiny = ["--steps", "1", "--frames", "1"]  # The network that ships reads longer sentences.

    def new_faults_of_pages(self) -> list[str]:
        """Pages stay in the folder; each counts once."""
        found = [fault for fault in faults_of_pages(self.folder) if fault not in self.seen]
        self.seen.update(found)
        return found

    def places(self) -> Iterable[tuple[str, list[str], bool]]:
        """What it is, the words, and whether JSON that is printed must hold the text."""
        prompt, me = f"{PROMPT} {self.text}", self.copy(self.me, f"me{self.name}.png")
        named = f"out{self.name}.png"
        yield "generate: prompt", ["generate", prompt, "--face", self.me, "-o", "a.png", *self.tiny, "--json"], True
        yield "generate: prompt refused", ["generate", f"a woman {self.text}", "--face", self.me], False
        yield (
            "generate: style",
            ["generate", PROMPT, "--style", self.text, "--face", self.me, "-o", "c.png", *self.tiny],
            False,
        )
        yield "generate: face", ["generate", PROMPT, "--face", me, "-o", "b.png", *self.quick], False
        yield "generate: no face", ["generate", PROMPT, "--face", f"no{self.name}"], False
        yield "generate: output", ["generate", PROMPT, "--face", self.me, "-o", named, *self.quick], False
        for option in (
            "--method",
            "--preset",
            "--backbone",
            "--adapter",
            "--shape",
            "--identity-blocks",
            "--character",
        ):
            yield f"generate: {option}", ["generate", PROMPT, "--face", self.me, f"{option}={self.text}"], False
        yield "generate: an option", ["generate", PROMPT, f"--{self.text}"], False
        yield "a command", [self.text], False
        add = ["character", "add", "ana", "--face", me, "--replace", "--consent", self.text]
        yield "character: consent", [*add, "-o", "ana.safetensors"], False
        yield "character show", ["character", "show", "ana.safetensors"], False
        yield "character show: JSON", ["character", "show", "ana.safetensors", "--json"], True
        yield "character: name", ["character", "add", self.text, "--face", self.me, "--consent", "yes"], False
        yield "character list", ["character", "list"], False
        yield "character remove", ["character", "remove", self.text], False
        yield "story", self.story(), False
        yield "story: no file", ["story", f"{self.name}.toml"], False
        yield "story: a setting", ["story", "story.toml", "--face", self.me, "--set", f"{self.text}=1"], False
        yield "train: no file", ["train", f"{self.name}.toml"], False
        yield "train: a setting", ["train", str(self.recipe()), "--set", f"{self.text}=1"], False
        yield "eval", self.evaluation(), True
        yield "eval: metrics", [*self.evaluation()[:4], "--metrics", self.text], False
        yield "compare", ["compare", me, f"no{self.name}"], False
        yield "puppets: group", ["puppets", "x.png", "--group", self.text], False
        yield "puppets: output", ["puppets", named.replace("out", "pup"), "--people", "1", "--size", "32"], False
        yield "models", ["models", "pull", self.text], False
        yield "bench create", self.bench("bench", ""), False
        yield "bench create: a name", self.bench("named", self.name), False
        yield "bench run", ["bench", "run", "bench", "--name", "a", *self.quick], False
        yield "bench report", ["bench", "report", "bench", "-o", "bench.html"], False
        yield "bench run: name", ["bench", "run", "bench", "--name", self.text, *self.quick], False
        yield "study create", self.study(), False
        yield "study report", ["study", "report", "study", "-o", "study.html"], False
        yield "study merge", ["study", "merge", "study", f"{self.name}.json"], False

    def copy(self, source: str, name: str) -> str:
        try:
            shutil.copyfile(source, self.folder / name)
        except OSError:  # No file can be called so.
            return source
        return name

    def recipe(self) -> Path:
        from trials import ROOT

        return ROOT / "recipes" / "tiny" / "vae.toml"

    def story(self) -> list[str]:
        shots = [{"prompt": PROMPT, "frames": 1}, {"prompt": f"{PROMPT} {self.text}", "frames": 1}]
        story = {"title": self.text, "steps": 1, "shots": shots if self.text.isprintable() else shots[:1]}
        (self.folder / "story.toml").write_text(STORY)
        (self.folder / "hostile.json").write_text(json.dumps(story))
        return ["story", "hostile.json", "--face", self.me, "-o", "story"]

    def evaluation(self) -> list[str]:
        system = self.folder / f"system{self.name}"
        shutil.copytree(self.material / "systems" / "ours", system, dirs_exist_ok=True)
        names = {path.stem: self.text for path in system.iterdir()}
        (self.folder / "prompts.json").write_text(json.dumps(names))
        words = ["eval", system.name, "--references", str(self.material / "references"), "-o", "results"]
        return [*words, "--metrics", "face_rate", "--prompts", "prompts.json", "--title", self.text, "--json"]

    def bench(self, output: str, name: str) -> list[str]:
        protocol = (self.material / "protocol.toml").read_text()
        (self.folder / "protocol.toml").write_text(
            protocol.replace('"Small"', json.dumps(self.text)).replace('"test"', json.dumps(self.text))
        )
        pictures = self.folder / f"pictures_{output}" / "woman"
        pictures.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.me, pictures / "eva.png")
        self.copy(self.me, f"pictures_{output}/woman/ann{name}.png")
        words = ["bench", "create", "protocol.toml", "--pictures", f"pictures_{output}", "-o", output]
        return [*words, "--allow-fewer"]

    def study(self) -> list[str]:
        systems = []
        for number, name in enumerate(("ours", "theirs")):
            systems.append(f"s{number}{self.name.replace('=', '_')}={self.material / 'systems' / name}")
        question = {"name": "a", "title": self.text, "text": self.text, "low_label": self.text}
        text = f"title = {json.dumps(self.text)}\nsource = {json.dumps(self.text)}\n[[questions]]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in question.items())
        (self.folder / "questions.toml").write_text(text)
        words = ["study", "create", *systems, "--references", str(self.material / "references")]
        return [*words, "--questions", "questions.toml", "-o", "study", "--seed", "1"]


def judge(what: str, words: list[str], hostile: Hostile, tally: Tally, *, holds: bool) -> None:
    ended = Command(words, hostile.folder, log=hostile.folder.with_suffix(".log")).end(LONGEST_S)
    faults = ended.faults([0, *REFUSED])
    if found := OBEYED.search(ended.printed.replace("\r\n", "\n")):
        line = next(line for line in ended.printed.split("\n") if OBEYED.search(line))
        faults.append(f"prints {found[0]!r} in {line[:120]!r}")
    is_text = hostile.text.isprintable() or "\udcff" not in hostile.text
    faults += faults_of_json(ended.printed, hostile.text, must_hold=holds and ended.code == 0 and is_text)
    faults += hostile.new_faults_of_pages()
    faults += [fault for fault in damaged(hostile.folder) if not fault.startswith(NOT_JUDGED)]
    tally.add(f"text in {what.split(':')[0]}", [f"{what}: {fault}" for fault in faults], outcome=f"exit {ended.code}")


def static_pages() -> list[str]:
    """Scripts of the survey must write text as text."""
    from trials import ROOT

    folder = ROOT / "src" / "likeness" / "app" / "study" / "site"
    forbidden: Callable[[str], bool] = lambda text: any(  # noqa: E731
        word in text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    )
    return [f"{path.name} writes markup" for path in folder.glob("*.js") if forbidden(path.read_text())]


def main() -> int:
    benchmark = benchmark_of("text", [*TEXTS])
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    os.environ["PYTHONUTF8"] = "1"
    parent, tally = arguments.output.absolute(), Tally(benchmark)
    material = make_material(parent / "material", arguments.material)
    chosen = arguments.only or (["terminal", "short"] if arguments.quick else [*TEXTS])
    for name in chosen:
        folder = parent / name.replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        hostile = Hostile(material, folder, TEXTS[name])
        for what, words, holds in hostile.places():
            judge(what, words, hostile, tally, holds=holds)
        print(f"  {name}: done", flush=True)
    tally.add("text in the survey's scripts", static_pages())
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
