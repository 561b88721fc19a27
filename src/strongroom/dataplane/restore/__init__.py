"""Plans a restore and carries the plan out."""
