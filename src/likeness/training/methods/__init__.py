"""Trains identity methods over a frozen base."""
