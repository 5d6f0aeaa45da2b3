"""Training: assignment, loss, optimizer, LightningModules.

module.py             DetectorModule, the LightningModule: steps, optimizer, logging, checkpoints
classifier_module.py  ClassifierModule, the same for pre-training; top_classes.py has its metrics
base_module.py        what both have in common
loss.py               raw outputs and targets -> loss terms, and their normalization
assigner.py           which anchors are positive, and for which object
optimizer.py          parameter groups, and the optimizer for them
musgd.py              MuSGD: SGD and Muon in one optimizer
schedule.py           learning rate and momentum of every step
recipe.py             what "auto" means: the settings by images and start; recipe_table.py has its constants
parts.py              parts of a model by name, to freeze them or give them their own learning rate
batch_size.py         the batch size that fits into the memory of a GPU
"""
