"""Applications on top of the library: user studies, benchmarks, demo. Only here is the web framework imported."""
