"""`likeness train report`: one page about a run, without external resources.

`read.py` reads the run's folder, `charts.py` draws curves, `page.py` puts them together in the style of `style.py`.
Everything that comes from files is escaped.
"""
