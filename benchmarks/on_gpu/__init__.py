"""What `benchmarks/gpu.py` measures, and the models with random weights that it measures them on."""
