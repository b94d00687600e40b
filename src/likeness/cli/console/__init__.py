"""What the commands share: options, progress bars, and text made safe for a terminal."""
