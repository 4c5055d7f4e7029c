"""Replicas under load while PostgreSQL is restarted, Redis killed and brought back empty, and the storage made slow.

``python -m tests.operations.chaos --seconds 60`` runs it for a minute and gives a verdict; ``--help`` tells
the rest.
"""
