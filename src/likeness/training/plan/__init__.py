"""`likeness train plan`: what a recipe of a method needs, counted before anything is loaded or downloaded.

`sizes.py` has parameters from torch's meta device, `flops.py` FLOPs, `activations.py` and `memory.py` bytes on a GPU,
`caches.py` bytes on disk; `plan.py` collects them and `show.py` prints them. No number here was measured on a GPU.
"""
