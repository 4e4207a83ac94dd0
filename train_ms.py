"""Train many voices: `python train_ms.py -c configs/vits2_vctk_base.json -m vctk`.

VITS's name for it. The program is train.py, which takes the number of voices from the config.
"""

from train import main

if __name__ == "__main__":
    main()
