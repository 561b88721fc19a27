"""A flat map from key to immutable bytes, and its drivers."""
