"""The estimate of a training step on a CPU."""

import tiny
import torch

from trainer import Trainer
from training import pace


def test_a_slow_config_is_named_before_the_first_step(monkeypatch, caplog):
    trainer = Trainer(tiny.config(tiny.DURATION_DISCRIMINATOR), torch.device("cpu"))
    batch = tiny.batch(trainer.config)
    networks = [learner.network for learner in trainer.learners.values()]
    weights = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    state = torch.get_rng_state()
    caplog.clear()
    pace.advise(trainer, batch, 1000)
    assert not caplog.messages
    monkeypatch.setattr(pace, "SLOW", 0.0)
    pace.advise(trainer, batch, 1000)
    assert "seconds on this CPU" in caplog.text and "configs/vits2_small.json" in caplog.text
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tiny.equal(before, dict(network.state_dict())) for before, network in zip(weights, networks))
    assert all(network.training for network in networks)
