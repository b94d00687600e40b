"""The style sheet of the page, light and dark, and its tables."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --soft: #62625d; --paper: #f7f7f5; --card: #fff; --line: #dcdcd6;
        --c0: #2f6db3; --c1: #c2571a; --c2: #2e8b57; --c3: #8a4fbe }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecece8; --soft: #a8a8a1; --paper: #161615; --card: #20201f; --line: #3a3a37;
          --c0: #78abe6; --c1: #f0965f; --c2: #6cc494; --c3: #bd93e6 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem }
h3 { font-size: .95rem; margin: 0 0 .4rem }
p { margin: .4rem 0; max-width: 48rem } .soft { color: var(--soft) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem;
        margin-top: 1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem;
        min-width: 0 }
svg { display: block; width: 100%; height: auto }
svg text { fill: var(--soft); font: 15px system-ui, sans-serif; font-variant-numeric: tabular-nums }
svg .rule { stroke: var(--line) }
svg .curve { fill: none; stroke-width: 1.6; stroke-linejoin: round }
.legend { font-size: .82rem; color: var(--soft); margin: .3rem 0 0 } .legend b { font-weight: 600 }
.legend span { white-space: nowrap; margin-right: .7em }
.sheets { display: flex; flex-direction: column; gap: 1rem; margin-top: 1rem }
.sheets figure { margin: 0; overflow-x: auto } .sheets img { max-width: 100%; border-radius: 6px; display: block }
figcaption { font-size: .85rem; color: var(--soft); margin-bottom: .3rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap }
tbody th { font-weight: 600; white-space: nowrap }
details { margin-top: .8rem } summary { cursor: pointer }
pre { font: .82rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .6rem 0 0 }
"""


def table(head: str, rows: str) -> str:
    """An HTML table that scrolls sideways where it is too wide."""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
