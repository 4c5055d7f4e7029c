"""The pages of the console: what is read and done by each part."""
