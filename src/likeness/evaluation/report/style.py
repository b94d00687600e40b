"""What report pages share: the style sheet, light and dark, and tables."""

ARROWS = {"higher": "&uarr;", "lower": "&darr;", "neither": ""}
"""By the direction of a metric."""
STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --soft: #62625d; --paper: #f7f7f5; --card: #fff; --line: #dcdcd6 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecece8; --soft: #a8a8a1; --paper: #161615; --card: #20201f; --line: #3a3a37 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem }
h3 { font-size: 1rem; margin: 0 0 .5rem }
p { margin: .4rem 0; max-width: 48rem } .soft { color: var(--soft) }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr));
        gap: 1rem; margin-top: 1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem }
svg { display: block; width: 100%; height: auto; overflow: visible }
svg text { fill: var(--ink); font: 15px system-ui, sans-serif; font-variant-numeric: tabular-nums }
svg .tick { fill: var(--soft); font-size: 12px } svg .rule { stroke: var(--line) }
.bars { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .9rem }
.bars figure { flex: 1 1 7rem; max-width: 12rem; margin: 0 }
.bars svg { border-bottom: 1px solid var(--line) }
figcaption { font-size: .8rem; color: var(--soft) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
thead th { color: var(--soft); font-weight: 500 } tbody th { font-weight: 600 }
"""


def table(head: str, rows: str) -> str:
    """An HTML table that scrolls sideways where it is too wide."""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
