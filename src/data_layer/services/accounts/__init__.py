"""Accounts of people: registering, logging in, changing, ending."""
