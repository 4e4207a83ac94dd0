"""Parts of `config.py`: checks of combinations of settings, and the configs of other projects."""
