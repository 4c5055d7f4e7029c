"""Real servers for tests, also for users of the library."""
