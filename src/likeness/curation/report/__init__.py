"""The page about a folder of curated data: what was kept, what was dropped and why."""
