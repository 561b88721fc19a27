"""The query language of Resource Graph: the part of KQL that the clients send, parsed and evaluated over rows."""

from strongroom.controlplane.arm.kql.errors import KqlError, KqlTooCostly
from strongroom.controlplane.arm.kql.query import Query, parse

__all__ = ["KqlError", "KqlTooCostly", "Query", "parse"]
