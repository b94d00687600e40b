"""The style sheet of the page, light and dark."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --soft: #62625d; --paper: #f7f7f5; --card: #fff; --line: #dcdcd6;
        --c0: #2f6db3; --c1: #c2571a }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecece8; --soft: #a8a8a1; --paper: #161615; --card: #20201f; --line: #3a3a37;
          --c0: #78abe6; --c1: #f0965f } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem }
h3 { font-size: .95rem; margin: 1rem 0 .4rem } .card h3 { margin-top: 0 }
p { margin: .4rem 0; max-width: 48rem } .soft { color: var(--soft) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem;
        margin-top: 1rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.1rem;
        min-width: 0 }
svg { display: block; width: 100%; height: auto } svg.bar { width: 12rem; margin-top: .3rem }
svg text { fill: var(--soft); font: 15px system-ui, sans-serif; font-variant-numeric: tabular-nums }
svg .rule { stroke: var(--line) }
.row { display: flex; flex-wrap: wrap; gap: .6rem; margin: .4rem 0 1rem }
figure { margin: 0; width: 8.5rem } figure img, figure div { width: 8.5rem; height: 8.5rem; object-fit: contain;
        border-radius: 6px; background: var(--line); display: block }
.dropped img { outline: 2px solid var(--c1) }
figcaption { font-size: .75rem; color: var(--soft); margin-top: .2rem; overflow-wrap: anywhere }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem 1.4rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap }
tbody th { font-weight: 600; white-space: nowrap }
details { margin-top: .8rem } summary { cursor: pointer }
pre { font: .82rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: .6rem 0 0 }
"""
