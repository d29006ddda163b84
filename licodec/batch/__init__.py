"""Many files: where they are, what is to be done with each, by which processes, and what came of it."""
