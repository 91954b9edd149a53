"""Where this node stands, and whether the nodes reach each other."""
