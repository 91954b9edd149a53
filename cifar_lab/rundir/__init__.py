"""The run directory: its place, who holds it, its files."""
