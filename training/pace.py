"""The seconds of a training step on a CPU, estimated before the first step, which may take minutes."""

import logging
import time

import torch

import distributed
from data_utils import Batch
from trainer import Trainer

logger = logging.getLogger(__name__)

MANY_HOURS = 48  # above which the time of a run is given in days
SLOW = 10.0  # seconds of a step, from which a CPU is too slow for a config
# A step takes as long as this many forward passes: the generator's with its backward pass; the discriminators' twice,
# for their own update and the generator's, each with its backward pass.
GENERATOR, DISCRIMINATORS = 3, 6


def advise(trainer: Trainer, batch: Batch, total: int) -> None:
    """Warn if a step of this config takes long on this CPU, and name smaller configs. `total` is the run's last step.

    Random draws and weights are unchanged. Several processes are not advised.
    """
    if trainer.device.type != "cpu" or distributed.world_size() > 1:
        return
    seconds = seconds_of_a_step(trainer, batch)
    if seconds >= SLOW:
        hours = (total - trainer.position.step) * seconds / 3600
        logger.warning(
            "a step takes about %.0f seconds on this CPU, and the rest of the run %s: this config is for a GPU. "
            "A smaller train.batch_size and frozen parts (train.lr_scale) take less, configs/vits2_small.json trains "
            "a smaller voice, and python demo.py trains for minutes",
            seconds,
            f"{hours / 24:.0f} days" if hours > MANY_HOURS else f"{hours:.1f} hours",
        )


@torch.no_grad()
def seconds_of_a_step(trainer: Trainer, batch: Batch) -> float:
    """Return the estimated seconds of a step on a batch, from the forward passes of one of its utterances."""
    utterances = len(batch.text)
    one = batch.parts(utterances)[0]
    networks = [learner.network for learner in trainer.discriminators().values()]
    for network in networks:
        network.eval()  # spectral norm changes its vectors in training
    with torch.random.fork_rng([]):
        for _ in range(2):  # the first time includes the choice of kernels
            begin = time.perf_counter()
            _, out = trainer.generate(one)
            generated = time.perf_counter()
            for _ in trainer.discriminator_losses(one, out):
                pass
            judged = time.perf_counter()
    for network in networks:
        network.train()
    return utterances * (GENERATOR * (generated - begin) + DISCRIMINATORS * (judged - generated))
