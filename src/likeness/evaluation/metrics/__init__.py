"""Metrics computed from features, references and prompts."""
