"""Train several speakers: VITS's name for train.py, which takes their number from the config.

Examples:
  python train_ms.py -c configs/vits2_vctk_base.json -m vctk
"""

from train import main

if __name__ == "__main__":
    main()
