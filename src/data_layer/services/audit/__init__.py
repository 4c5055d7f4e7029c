"""The audit trail: recording what belongs to no transaction, reading, and exporting."""
