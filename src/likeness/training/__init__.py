"""Trains the tiny backbone and the methods, from recipes. Importing it loads no torch; its modules do."""
