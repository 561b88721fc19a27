"""The REST API of Azure Resource Manager: routes, shapes, long-running operations, errors."""
