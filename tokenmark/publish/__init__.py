"""Publishing: what a record must be before others are shown it, and what a pull request of records holds."""
