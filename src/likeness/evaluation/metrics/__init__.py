"""Figures computed from features, references and prompts."""
