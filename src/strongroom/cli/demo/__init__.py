"""The demonstration behind `make demo`: protect, break and restore a sample application on a real control plane."""
