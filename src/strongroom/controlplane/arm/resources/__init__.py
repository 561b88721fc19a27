"""Microsoft.Resources: subscriptions, resource groups, lists of resources, and resource providers."""
