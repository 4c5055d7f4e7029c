"""Rows in and out: all SQL of the application lives here."""
