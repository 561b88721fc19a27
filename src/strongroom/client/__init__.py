"""A client of Strongroom's REST API, for the command line: any Azure SDK does the same.

It knows the API alone: neither plane is imported here.
"""
