"""Parts of `export_onnx.py`: graphs, metadata, files for Piper and sherpa-onnx, and smaller weights."""
