"""Connections, transactions, migrations and statistics of PostgreSQL."""
