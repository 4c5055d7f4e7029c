"""What the operator sees of a running process: its log."""
