"""`likeness data`: makes training data from raw photographs and videos, and what belongs to it."""

from likeness.cli.data.commands import register as register
