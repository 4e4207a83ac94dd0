"""Write the golden values of Hugging Face's `VitsModel`, `tests/golden/huggingface_*.json`.

Needs the package transformers, which no other program here needs. The weights depend on their names and shapes alone,
see `golden_weights` in test_import_voice.py, so that they need not be stored.
"""

import json
import tempfile
from pathlib import Path

import torch
from test_import_voice import golden_weights
from transformers import VitsConfig, VitsModel, VitsTokenizer

GOLDEN = Path(__file__).parent / "golden"
TEXT = "hello world, a test"
SMALL = {
    "vocab_size": 33,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 12,
    "flow_size": 8,
    "spectrogram_bins": 129,
    "upsample_initial_channel": 16,
    "upsample_rates": [8, 8],
    "upsample_kernel_sizes": [16, 16],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "posterior_encoder_num_wavenet_layers": 2,
}
CASES = {
    "stochastic": {},
    "speakers": {"use_stochastic_duration_prediction": False, "num_speakers": 3, "speaker_embedding_size": 6},
}


def main() -> None:
    """Write one file for each case."""
    for case, settings in CASES.items():
        model = VitsModel(VitsConfig(**SMALL, **settings)).eval()
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        model.load_state_dict(golden_weights(shapes))
        model.noise_scale = model.noise_scale_duration = 0.0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            vocabulary = {symbol: i for i, symbol in enumerate("k'z|yubcdjpwtvglnfaesxrhmqi- oóāé")}
            (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
            options = {"normalize": True, "phonemize": False, "pad_token": "k", "unk_token": "<unk>"}
            tokenizer = VitsTokenizer(str(folder / "vocab.json"), add_blank=True, is_uroman=False, **options)
            tokenizer.save_pretrained(folder)
            content = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
        speaker = 1 if settings else None
        with torch.no_grad():
            waveform = model(ids, speaker_id=speaker).waveform[0]
        golden = {
            "config": {key: value for key, value in model.config.to_dict().items() if key != "transformers_version"},
            "tokenizer_config": content,
            "vocab": vocabulary,
            "shapes": shapes,
            "text": TEXT,
            "ids": ids[0].tolist(),
            "speaker": speaker,
            "waveform": [round(x, 6) for x in waveform.tolist()],
        }
        path = GOLDEN / f"huggingface_{case}.json"
        path.write_text(json.dumps(golden, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
