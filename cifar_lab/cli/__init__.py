"""What every command needs of a terminal: arguments, mistakes told, tables, names and durations as they are printed."""
