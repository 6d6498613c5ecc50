"""What a sweep leaves: leaderboard, report, bundles, a study."""
