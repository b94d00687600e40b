"""The style sheet of the page: that of `likeness train report`, with rows of small pictures."""

from likeness.training.report.style import STYLE as _TRAINING_STYLE

STYLE = (
    _TRAINING_STYLE
    + """
h3 { margin: 1rem 0 .4rem } .card h3 { margin-top: 0 }
.grid { grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)) }
svg.bar { width: 12rem; margin-top: .3rem }
.row { display: flex; flex-wrap: wrap; gap: .6rem; margin: .4rem 0 1rem }
figure { margin: 0; width: 8.5rem } figure img, figure div { width: 8.5rem; height: 8.5rem; object-fit: contain;
        border-radius: 6px; background: var(--line); display: block }
.dropped img { outline: 2px solid var(--c1) }
figcaption { font-size: .75rem; margin-top: .2rem; overflow-wrap: anywhere }
"""
)
