"""The operations of Microsoft.DataProtection: vaults, policies, backup instances, jobs, recovery points, restores."""
