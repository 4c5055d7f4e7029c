"""What an operator wants to know of a PostgreSQL server; everything is only read.

``server.py`` asks what any server can tell, ``schema.py`` about our tables, ``activity.py`` what goes on.
"""
