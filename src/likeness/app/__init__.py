"""What people use in a browser or leave running: user studies, benchmarks. The only door to the web framework."""
