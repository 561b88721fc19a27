"""Microsoft.ResourceGraph: searches over all resources that the caller may read, in the query language of KQL."""
