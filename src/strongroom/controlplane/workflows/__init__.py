"""Durable workflows: jobs as named steps that go on where they stopped, behind a small port."""
