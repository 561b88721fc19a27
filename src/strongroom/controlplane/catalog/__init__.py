"""What the control plane knows of containers: their repositories, the keys of these, their recovery points."""
