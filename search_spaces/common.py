"""Parameters that every family searches, the same objects for all: what differs between families is the network alone.

Low-data tuning of just these beat all but one of eight specialised methods (Brigato et al. 2021, arXiv 2108.13122).
"""

from search_spaces.parameters import Choice, Float, Parameter

COMMON: dict[str, Parameter] = {
    # From below the 5e-3 of low-data work at batches of 10 to above the 0.1 that ResNets use at 100 to 256.
    "optim.lr": Float(1e-3, 0.3, log=True),
    # As Brigato et al. search it. Scarce data want about ten times the usual 5e-4; a baseline denied that is weak.
    "optim.weight_decay": Float(1e-5, 1e-1, log=True),
    # At a fixed number of epochs smaller batches are more optimizer updates. The largest needs the most memory.
    "optim.batch_size": Choice((64, 32, 16)),
    "data.augment": Choice(("none", "standard")),
}
