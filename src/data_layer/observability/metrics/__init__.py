"""Counting what happens, and reporting it to Prometheus. Importing ``durations`` loads no other library."""
