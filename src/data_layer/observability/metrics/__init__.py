"""Counting what happens, and telling it to Prometheus. Importing ``durations`` loads no other library."""
