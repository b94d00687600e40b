"""Identity, face motion and text alignment of videos, measured on their frames."""
