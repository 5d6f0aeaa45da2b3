"""Check a data set before training: findings, report, sample sheets."""
