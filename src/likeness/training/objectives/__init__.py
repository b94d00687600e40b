"""Loss functions and the teachers that give their targets."""
