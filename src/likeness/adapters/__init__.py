"""From identity tokens to the inside of a frozen transformer: modulation, attention, block, attach."""
