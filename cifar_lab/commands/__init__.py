"""One file a command: it parses its arguments, calls one thing and prints."""
