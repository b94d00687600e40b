"""Face detectors and recognizers behind one interface."""
