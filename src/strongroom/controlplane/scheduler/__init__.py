"""Has scheduled backups made when they are due, and what is over let go."""
