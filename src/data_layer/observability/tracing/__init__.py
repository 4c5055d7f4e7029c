"""Traces with OpenTelemetry: request, service call, and each statement, cache and storage operation below it.

Nothing here is imported while traces are off, but ``current``. Names of spans are static and attributes follow the
semantic conventions; SQL, values, keys, paths and tokens stand in none of them.
"""
