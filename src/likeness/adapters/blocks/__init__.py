"""Adapted transformer blocks and their layers."""
