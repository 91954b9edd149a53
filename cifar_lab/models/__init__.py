"""Networks by name, how one is built and how large it is."""
