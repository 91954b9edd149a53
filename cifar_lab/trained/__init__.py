"""A finished model: measured, asked, exported."""
