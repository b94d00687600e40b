"""The condition of a forward pass: user settings, regions of several people, and the state of an open context."""
