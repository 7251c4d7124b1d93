"""How fast a bundle runs on this machine, and whether that can be believed."""
