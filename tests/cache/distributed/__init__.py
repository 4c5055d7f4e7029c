"""The cache as a distributed system: processes that read and write the same rows while some are stopped and killed.

``python -m tests.cache.distributed --seconds 60`` runs it for a minute; ``--help`` tells the rest.
"""
