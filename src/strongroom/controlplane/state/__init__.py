"""Everything the control plane remembers, in one SQL database."""
