"""The slice of Microsoft Graph that Azure's clients need beside ARM: who is in the directory, and making a caller."""
