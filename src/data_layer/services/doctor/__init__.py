"""``data-layer doctor`` checks everything that the data layer needs, changes nothing, and never hangs.

Each file holds the checks of one part. A check is a small function that returns a `CheckResult`; ``checks`` runs them.
"""
