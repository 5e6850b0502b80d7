"""Plain programs with no product in them: what the building blocks can do on this machine, in this hour."""
