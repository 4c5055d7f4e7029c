"""Signed URLs: permission to read or store one file for a while, in the form that each kind of server verifies.

What is signed here is compared in the tests with what the vendors' own libraries sign, and sent to servers that verify.
"""
