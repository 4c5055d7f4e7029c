"""The frozen values that callers see: never a secret in them."""
