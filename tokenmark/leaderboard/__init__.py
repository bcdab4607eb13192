"""The leaderboard page: a pure function of the records."""
