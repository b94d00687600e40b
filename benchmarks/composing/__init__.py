"""What `composition.py` and the tests of composition try: features, calls and processes, on any pipeline."""
