"""Access to the Kubernetes API: configuration, discovery, exact lists, writes."""
