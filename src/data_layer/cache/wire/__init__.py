"""The way to the servers: connections, nodes with their breakers, and where the keys are. ``commands`` is its door."""
