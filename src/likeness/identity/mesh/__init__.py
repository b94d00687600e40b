"""Triangle meshes, and the networks of FantasyID that read their vertices."""
