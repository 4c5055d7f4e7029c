"""The way to the servers: lines, primaries with their breakers, and where the keys are. ``commands`` is its door."""
