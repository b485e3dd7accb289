"""The trained model and its outlier head as one ONNX file, which other programs take, run by onnxruntime."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from src.pipeline.process import UserError, first_line
from src.reader.head.outlier_head import Predictions
from src.resnet.inference import InputFormat
from src.resnet.model_file import METADATA_KEY

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reads this as it is loaded
import onnxruntime

ONNX_FILE = Path("models/model.onnx")
INPUT, LOGITS, SCORE = "images", "logits", "outlier_score"  # of the graph


class OnnxClassifier:
    """What `TorchClassifier` is, from ``models/model.onnx``, on the CPU."""

    def __init__(self, model: Path | bytes) -> None:
        """Load a file, or its content. Raises `UserError` where it is missing, damaged, or not of this project."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is wrong is said below
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            metadata = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
            self.class_names: list[str] = metadata["class_names"]
            self._batch_size = InputFormat.of_model(metadata).batch_size
        except FileNotFoundError as error:
            raise UserError(f"there is no file {model}; `make reader` makes it") from error
        except Exception as error:  # onnxruntime raises many kinds for a wrong file
            name = "the exported model" if isinstance(model, bytes) else model
            raise UserError(f"{name}: not an ONNX file of this project ({first_line(error)})") from error

    def predict(self, images: torch.Tensor) -> Predictions:
        """Classify images (N, 28, 28) uint8."""
        outputs = [
            self._session.run([LOGITS, SCORE], {INPUT: batch.unsqueeze(1).numpy()})
            for batch in images.split(self._batch_size)
        ]
        logits, scores = (np.concatenate(column) for column in zip(*outputs, strict=True))
        return Predictions(torch.from_numpy(logits), torch.from_numpy(scores))
