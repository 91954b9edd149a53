"""What every command needs of a terminal: argument types, names as they can be printed, Ctrl-C."""
