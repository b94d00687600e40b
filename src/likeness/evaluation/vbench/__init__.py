"""Runs VBench in an environment of its own and reads its results."""
