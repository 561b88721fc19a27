"""Shipped test tools: a real control plane on loopback, fault proxies, contract suites."""
