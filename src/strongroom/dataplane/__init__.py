"""The data plane: reads a cluster, keeps what it read in a repository, restores it. Knows nothing of vaults or ARM."""
