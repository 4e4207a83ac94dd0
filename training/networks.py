"""The networks of a run, as its config describes them."""

from torch import nn

import conditions
from config import Config
from discriminators import DURATION_DISCRIMINATORS, MultiPeriodDiscriminator
from models import SynthesizerTrn
from text.tokens import vocabulary

DURATION_DISCRIMINATOR_KERNEL, DURATION_DISCRIMINATOR_DROPOUT = 3, 0.1


def build_generator(config: Config) -> SynthesizerTrn:
    """Build the generator that a config describes."""
    return SynthesizerTrn.from_config(config, vocabulary(config.data))


def build_discriminator(config: Config) -> nn.Module:
    """Build the waveform discriminator that a config describes."""
    model = config.model
    return MultiPeriodDiscriminator(
        model.use_spectral_norm, model.discriminator_channels, model.stft_discriminator_channels
    )


def build_duration_discriminator(config: Config) -> nn.Module:
    """Build the duration discriminator that a config describes."""
    model = config.model
    gin_channels = model.gin_channels if model.use_duration_noise and conditions.sizes(config.data) else 0
    return DURATION_DISCRIMINATORS[model.duration_discriminator_type](
        model.hidden_channels,
        model.hidden_channels,
        DURATION_DISCRIMINATOR_KERNEL,
        DURATION_DISCRIMINATOR_DROPOUT,
        gin_channels,
    )
