"""The leaderboard: a static site that is a pure function of a results folder."""
