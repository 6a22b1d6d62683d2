"""A look at the user's program, taken by a child process that imports it; see `child`."""
