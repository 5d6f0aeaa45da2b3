"""Run folders: file names, records, checks, checkpoints."""
