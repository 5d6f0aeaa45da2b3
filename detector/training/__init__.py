"""Train the network: assignment, loss, optimizer, LightningModule."""
