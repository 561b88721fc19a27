"""Microsoft.Authorization: role definitions, role assignments at any scope, and what the caller may do."""
