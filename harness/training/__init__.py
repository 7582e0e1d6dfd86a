"""One training: its configuration, one step, the loop, its saved state, and the likelihood that it ends with."""
