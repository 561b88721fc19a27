"""Takes the documents from custom resources: watches them, has them carried out, writes their statuses."""
