"""Who calls and what they may do: tokens, principals, role definitions and role assignments."""
