"""An HTML page of generated clips: videos, contact sheet, similarity, settings.

Pictures are inlined and videos are linked by relative paths, so the folder can be moved or sent. The page loads no
external script, font or style sheet.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness.files import write_text
from likeness.records import Clip
from likeness.text import escape_html

CLIP_PAGE_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --soft: #6b6b66; --paper: #f7f7f5; --card: #ffffff; --line: #e2e2dd }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecece8; --soft: #a0a09a; --paper: #161615; --card: #20201f; --line: #353533 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem }
p { margin: .3rem 0 } .soft { color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1.1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden }
.card video { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; image-rendering: auto }
.card div { padding: .8rem 1rem 1rem } .prompt { font-weight: 600 }
.figures { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin-top: .5rem; font-size: .88rem }
.figures b { font-variant-numeric: tabular-nums }
.people { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem }
figure { margin: 0 } figcaption { font-size: .88rem; color: var(--soft); margin-top: .3rem }
.people img { width: 8rem; height: 8rem; border-radius: 12px; object-fit: cover; display: block }
.film { display: block; width: min(100%, 26rem); border-radius: 12px; margin-top: 1.2rem }
.wide { width: 100%; border-radius: 12px; border: 1px solid var(--line); display: block; background: #fff }
table { border-collapse: collapse; font-size: .9rem } td { padding: .25rem 1.4rem .25rem 0; vertical-align: top }
td:first-child { color: var(--soft) }
"""

SIMILARITY_EXPLANATION = (
    "Each frame is read by a face recogniser and compared with the reference. <b>Distance</b> is how far apart the two "
    "faces are: for photographs, below {threshold:.2f} is the same person and about 0.85 is somebody else. "
    "<b>Same person</b> is the share of frames under that line, <b>face found</b> the share in which there was a face "
    "to read. <b>Similarity</b> sums them up from 0 to 1: a frame on that line counts 0.5, one without a face 0. "
    "Small drawn people lie closer together than photographs do, so judge these figures against each other."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportItem:
    """One clip of a report."""

    clip: Clip
    video: Path
    """The mp4, inside the folder of the report."""
    person: str
    """Name of the reference person; items of one person are grouped."""
    references: tuple[Path, ...]
    """Pictures of the reference face."""
    name: str = ""
    """Label before the prompt, such as "Shot 1"."""


def write_report(
    path: Path,
    items: Sequence[ReportItem],
    *,
    title: str,
    sheet: Path,
    plot: Path,
    subtitle: str = "One reference picture and one sentence went into each video.",
    joined_video: Path | None = None,
) -> None:
    """Write the page for `items` to `path`; `joined_video` is one video of all clips joined."""
    people = list(dict.fromkeys(item.person for item in items))
    sections = "\n".join(_person_section(path.parent, person, items) for person in people)
    threshold = next((item.clip.similarity.threshold for item in items if item.clip.similarity), 0.6)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape_html(title)}</title><style>{CLIP_PAGE_STYLE}</style></head><body>
<h1>{escape_html(title)}</h1>
<p class="soft">{escape_html(subtitle)}</p>
{_joined_video(path.parent, joined_video)}{sections}
<h2>Frames</h2>
<img class="wide" src="{inline(sheet)}" alt="Contact sheet: the reference face, then frames of each video">
<h2>Similarity by frame</h2>
<img class="wide" src="{inline(plot)}" alt="Distance to the reference face for every frame">
<p class="soft">{SIMILARITY_EXPLANATION.format(threshold=threshold)}</p>
<h2>How they were made</h2>
{_settings_table(items[0].clip)}
<p class="soft">Each video has a JSON file beside it with everything needed to make it again, and carries the same
inside.</p>
</body></html>
"""
    write_text(path, page)


def _joined_video(folder: Path, joined_video: Path | None) -> str:
    if joined_video is None:
        return ""
    source = escape_html(joined_video.relative_to(folder).as_posix())
    return f'<video class="film" src="{source}" autoplay loop muted playsinline controls></video>\n'


def inline(picture: Path) -> str:
    """Encode a picture file as a data URL."""
    image_type = "jpeg" if picture.suffix.lower() in {".jpg", ".jpeg"} else "png"
    return f"data:image/{image_type};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _person_section(folder: Path, person: str, items: Sequence[ReportItem]) -> str:
    person_items = [item for item in items if item.person == person]
    pictures = "".join(
        f'<figure><img src="{inline(picture)}" alt="Reference face"><figcaption>reference</figcaption></figure>'
        for picture in person_items[0].references
    )
    cards = "\n".join(_card(folder, item) for item in person_items)
    return (
        f'<h2>{escape_html(person)}</h2>\n<div class="people">{pictures}</div>\n'
        f'<p>&nbsp;</p><div class="cards">{cards}</div>'
    )


def _card(folder: Path, item: ReportItem) -> str:
    source = escape_html(item.video.relative_to(folder).as_posix())
    name = f"{escape_html(item.name)}: " if item.name else ""
    figures = ""
    if item.clip.similarity:
        similarity = item.clip.similarity
        is_found = similarity.face_rate > 0
        distance = f"{similarity.mean_distance:.2f}" if is_found else "not measurable"
        figures = (
            f'<div class="figures" style="padding:0"><span>similarity <b>{similarity.score:.2f}</b></span>'
            f"<span>distance <b>{distance}</b></span>"
            f"<span>same person <b>{similarity.match_rate:.0%}</b></span>"
            f"<span>face found <b>{similarity.face_rate:.0%}</b></span></div>"
        )
    return (
        f'<div class="card"><video src="{source}" autoplay loop muted playsinline controls></video>'
        f'<div><p class="prompt">{name}{escape_html(item.clip.prompt)}</p>'
        f'<p class="soft">seed {escape_html(str(item.clip.settings.get("seed")))}{_describe_search(item.clip)}</p>'
        f"{figures}</div></div>"
    )


def _describe_search(clip: Clip) -> str:
    """The seeds that were tried and their similarities, if there were several."""
    search = clip.settings.get("best_of")
    if not search:
        return ""
    scores = {
        candidate["seed"]: "rejected early" if candidate["similarity"] is None else f"{candidate['similarity']:.2f}"
        for candidate in search["candidates"]
    }
    tried = ", ".join(f"{seed}: {score}" for seed, score in scores.items())
    missed = " None reached the similarity asked for." if search["passed"] is False else ""
    return escape_html(f", of seeds {tried}.{missed}")


def _settings_table(clip: Clip) -> str:
    setting_names = (
        "preset",
        "method",
        "licence",
        "steps",
        "guidance",
        "identity_scale",
        "identity_start",
        "identity_end",
        "identity_blocks",
        "identity_branch",
        "style",
        "negative_prompt",
        "frames",
        "fps",
        "width",
        "height",
    )
    rows = "".join(
        f"<tr><td>{escape_html(name.replace('_', ' '))}</td><td>{escape_html(str(clip.settings[name]))}</td></tr>"
        for name in setting_names
        if clip.settings.get(name) not in (None, "")
    )
    return f"<table>{rows}</table>"
