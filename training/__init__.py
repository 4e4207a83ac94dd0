"""Parts of training that train.py and trainer.py are composed of."""
