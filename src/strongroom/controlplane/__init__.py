"""The control plane: the ARM API, identity, durable jobs and the scheduler, in one process."""
