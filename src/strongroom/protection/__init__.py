"""The domain as values: schedules, policies, tags, retention, protection states. No I/O, no clock."""
