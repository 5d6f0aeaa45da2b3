"""The commands: the only place with argparse and LightningCLI."""
